# A service for an exported file, without torch:
#
#   docker build -t anomalyncd .
#   docker run --rm -p 127.0.0.1:8000:8000 -v "$PWD/screws.onnx:/models/model.onnx:ro" \
#     -e ANOMALYNCD_API_KEY=… --read-only --tmpfs /tmp anomalyncd
FROM python:3.12-slim-bookworm AS builder
WORKDIR /build
COPY requirements-build.lock requirements-serve.lock ./
# One package has no wheel: it is built with the tools of the first lock, which are removed again.
RUN python -m venv /venv \
    && /venv/bin/pip install --no-cache-dir --require-hashes --only-binary :all: -r requirements-build.lock \
    && /venv/bin/pip install --no-cache-dir --require-hashes --no-build-isolation -r requirements-serve.lock \
    && /venv/bin/pip uninstall --yes uv hatchling editables setuptools tomlkit trove-classifiers \
        pathspec pluggy pip

FROM python:3.12-slim-bookworm
COPY --from=builder /venv /venv
WORKDIR /app
COPY anomalyncd anomalyncd
RUN useradd --system --uid 10001 --no-create-home service
USER 10001
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=5s --start-period=20s CMD ["/venv/bin/python", "-c", \
    "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["/venv/bin/python", "-m", "anomalyncd", "serve"]
CMD ["/models/model.onnx", "--host", "0.0.0.0", "--port", "8000"]
