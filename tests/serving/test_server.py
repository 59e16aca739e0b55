"""The service as a process: hostile requests over a socket, and a SIGTERM under load."""

from __future__ import annotations

import os
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.helpers import drawn_file
from tests.helpers.drawn_file import RED, photograph
from tests.helpers.served import KEY, encoded

ROOT = Path(__file__).parents[2]
# What a container that serves a file does without.
FORBIDDEN = ("torch", "timm", "kornia", "hydra", "sklearn", "scipy", "numba", "onnx", "jinja2")
WITHOUT_TORCH = f"""
import sys
for name in {FORBIDDEN!r}:
    sys.modules[name] = None  # importing it fails
import anomalyncd.serving.server
anomalyncd.serving.server.HEADER_SECONDS = 1.0
from anomalyncd.cli.main import main
sys.exit(main(sys.argv[1:]))
"""
PHOTOGRAPH = encoded(photograph(RED))
AUTHORISED = {"Authorization": f"Bearer {KEY}"}


@dataclass
class Process:
    process: subprocess.Popen[str]
    address: str

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def end(self) -> str:
        """SIGTERM; what it wrote to standard error."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.communicate(timeout=30)[1]


def started(folder: Path, *options: str) -> Process:
    file = drawn_file.write(folder / "tiles.onnx")
    command = [sys.executable, "-c", WITHOUT_TORCH, "serve", str(file), "--port", "0", *options]
    environment = {**os.environ, "ANOMALYNCD_API_KEY": KEY, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.match(r"Service: (\S+)", line):
            return Process(process, found[1])
    raise AssertionError(process.communicate()[1])


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    options = ("--max-megabytes", "1", "--max-megapixels", "2", "--timeout", "1.5")
    made = started(tmp_path_factory.mktemp("service"), *options)
    yield made
    if made.process.poll() is None:
        made.process.kill()
        made.process.communicate()


def bomb(side: int) -> bytes:
    """A PNG of few bytes that says it is side × side pixels, and is."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((side // 8 + 1) * side), 9)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


def form(*files: tuple[str, bytes], boundary: str = "b") -> bytes:
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
        "Content-Type: image/png\r\n\r\n".encode()
        + content
        + b"\r\n"
        for name, content in files
    ]
    return b"".join(parts) + f"--{boundary}--\r\n".encode()


def hostile() -> Iterator[tuple[str, dict[str, str], bytes]]:
    """Type, more headers, body of requests that must all be refused."""
    rng = random.Random(0)
    png, of_form = "image/png", "multipart/form-data; boundary=b"
    for _ in range(60):  # truncated
        yield png, {}, PHOTOGRAPH[: rng.randrange(len(PHOTOGRAPH) // 2)]
    for _ in range(40):  # random bytes, behind the beginning of known formats
        start = rng.choice(
            [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"II*\0", b"BM", b"RIFF"]
        )
        yield png, {}, start + rng.randbytes(rng.randrange(400))
    for path in (
        "../../etc/passwd",
        "/etc/passwd",
        "C:\\x",
        "a\0b",
        "%2e%2e/x",
        "x" * 5000,
        "\u202e",
    ):
        yield of_form, {}, form((path, b"no image"))
    for kind in (
        "text/html",
        "",
        "multipart/form-data",
        "image",
        "application/x-pickle",
        "a" * 3000,
    ):
        yield kind, {}, PHOTOGRAPH
    yield of_form, {}, form(*(("a.png", PHOTOGRAPH) for _ in range(33)))  # many parts
    yield of_form, {}, form(*(("a.png", b"") for _ in range(3000)))
    yield of_form, {}, b"--b\r\n" * 10_000
    yield of_form, {}, b"--b\r\nContent-Disposition: form-data\r\n\r\nx"
    yield of_form, {}, b""
    for charset in ("undefined", "punycode", "idna", "none"):
        yield f"{of_form}; charset={charset}", {}, form(("\xff\x80.png", b"no image"))
    yield png, {}, bomb(20_000)
    yield png, {}, b"x" * 1_000_001  # huge
    yield png, {"Content-Encoding": "gzip"}, zlib.compress(bytes(900_000))
    for text in (b"{", b"[" * 100_000, b'{"url": 1}', b'{"url": "file:///etc/passwd"}', b"null"):
        yield "application/json", {}, text
    for key in ("", "Bearer", "Bearer x", f"Basic {KEY}", f"Bearer  {KEY}", f"Bearer {KEY[:-1]}"):
        for _ in range(8):
            yield png, {"Authorization": key}, PHOTOGRAPH


def test_hostile_requests_get_4xx_and_the_service_stays_alive(serving: Process) -> None:
    statuses: Counter[int] = Counter()
    with httpx.Client(base_url=serving.address, timeout=20) as web:
        for kind, headers, body in hostile():
            headers = {"Content-Type": kind, **AUTHORISED, **headers}
            try:
                answer = web.post("/predict", content=body, headers=headers)
            except (httpx.WriteError, httpx.ReadError):  # refused before it had sent all
                continue
            assert 400 <= answer.status_code < 500, (answer.status_code, kind, body[:60])
            assert "Traceback" not in answer.text and "/etc/passwd" not in answer.text
            assert "detail" in answer.json()
            statuses[answer.status_code] += 1
        for path in ("/static/../app.py", "/static/%2e%2e/%2e%2e/app.py", "/static//etc/passwd"):
            assert web.get(path).status_code in (401, 404)
        for number in ("-1", "x", "9" * 400):
            answer = web.get(f"/known?region={number}", headers=AUTHORISED)
            assert answer.status_code in (404, 422)
        good = {"Content-Type": "image/png", **AUTHORISED}
        assert web.post("/predict", content=PHOTOGRAPH, headers=good).status_code == 200
    assert sum(statuses.values()) > 150 and {401, 413, 415, 422} <= statuses.keys(), statuses


def talk(serving: Process, sent: bytes, rest: bytes = b"", pause: float = 0.0) -> bytes:
    """What comes back until the connection is closed by the service."""
    with socket.create_connection(("127.0.0.1", serving.port), timeout=15) as connection:
        connection.sendall(sent)
        try:
            for i in range(len(rest)):
                time.sleep(pause)
                connection.sendall(rest[i : i + 1])
        except OSError:  # closed, as it should be
            pass
        found = b""
        while chunk := connection.recv(65536):
            found += chunk
        return found


def test_slow_and_malformed_connections_are_closed(serving: Process) -> None:
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n".encode()
    length = b"Content-Type: image/png\r\nContent-Length: 500000\r\n\r\n"
    slow_body = talk(serving, head + length, b"x" * 40, 0.1)
    assert b" 408 " in slow_body.splitlines()[0]
    assert talk(serving, b"") == b""  # silent
    assert talk(serving, head, b"X-Slow: 1", 0.3) == b""  # headers without an end
    answered = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    second = talk(serving, answered, b"GET /h", 0.3)  # a second request without an end
    assert second.count(b"HTTP/1.1 ") == 1 and b" 200 " in second.splitlines()[0]
    chunked = head + b"Content-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert b" 413 " in talk(serving, chunked + b"F4241\r\n" + b"x" * 1_000_001)
    for bad in (
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
    ):
        assert b" 400 " in talk(serving, bad).splitlines()[0]
    assert httpx.get(f"{serving.address}/healthz").status_code == 200


def test_sigterm_under_load_loses_no_accepted_request(tmp_path: Path) -> None:
    """Clients that keep their connections open, and new ones, until the service is gone."""
    large = encoded(np.tile(photograph(RED), (8, 8, 1)))
    serving = started(tmp_path, "--queue", "200", "--batch", "2", "--timeout", "30")
    statuses: Counter[int] = Counter()
    refused: list[str] = []
    lost: list[str] = []

    def load() -> None:
        headers = {"Content-Type": "image/png", **AUTHORISED}
        with httpx.Client(base_url=serving.address, timeout=30) as web:
            while True:
                try:
                    answer = web.post("/predict", content=large, headers=headers)
                except httpx.ConnectError as error:  # never accepted
                    refused.append(repr(error))
                    return
                except httpx.HTTPError as error:
                    lost.append(repr(error))
                    return
                statuses[answer.status_code] += 1

    threads = [threading.Thread(target=load) for _ in range(12)]
    for thread in threads:
        thread.start()
    while sum(statuses.values()) < 30:
        time.sleep(0.01)
    said = serving.end()
    for thread in threads:
        thread.join(40)
    assert not lost, lost
    assert len(refused) == len(threads) and set(statuses) == {200}
    assert serving.process.returncode == 0
    assert "Traceback" not in said and "Error" not in said, said


def test_what_was_said_of_hostile_requests_holds_no_traceback(serving: Process) -> None:
    """The last test of this service: it ends."""
    said = serving.end()
    assert serving.process.returncode == 0
    assert "Traceback" not in said, said[-3000:]
