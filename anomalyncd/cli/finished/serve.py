"""`anomalyncd serve`: classify photographs that other programs, or people, send over HTTP."""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from anomalyncd.config import UNKNOWN_SHARE, require_max_megapixels, require_unknown_share
from anomalyncd.errors import InputError

if TYPE_CHECKING:
    from anomalyncd.serving.models import Limits, Model

KEY = "ANOMALYNCD_API_KEY"


def main() -> int:
    """Serve until SIGTERM or Ctrl-C; returns 0, or 1 for a reported error."""
    given = _parser().parse_args()
    try:
        _serve(given)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _serve(given: argparse.Namespace) -> None:
    try:
        from anomalyncd.serving import app, models, server
    except ModuleNotFoundError as error:
        raise InputError(
            f"the service needs {error.name}; install the extra: pip install 'anomalyncd[deploy]'"
        ) from error

    key = os.environ.get(KEY) or None
    server.require_safe(given.host, key)
    require_max_megapixels(given.max_megapixels)
    require_unknown_share(given.unknown_share)
    for name in ("max_megabytes", "timeout", "queue", "batch"):
        if getattr(given, name) <= 0:
            raise InputError(f"--{name.replace('_', '-')}: expected a number above 0")
    limits = models.Limits(given.threads, given.unknown_share, given.max_megapixels)
    opened = _opened(given.models, limits)
    listening = server.listener(given.host, given.port)
    bounds = app.Bounds(
        megabytes=given.max_megabytes,
        megapixels=given.max_megapixels,
        seconds=given.timeout,
        waiting=given.queue,
        together=given.batch,
    )
    host, port = listening.getsockname()[:2]
    service = app.Service(
        opened,
        bounds,
        host=host,
        port=port,
        key=key,
        allow_url=given.allow_url,
    )
    print(f"Models: {', '.join(opened)}", flush=True)
    server.serve(service, listening, lambda address: print(f"Service: {address}", flush=True))
    print("Stopped.", flush=True)


def _opened(words: list[str], limits: Limits) -> dict[str, Model]:
    """Models by name: the one given with `name=`, or that of the file or folder."""
    from anomalyncd.serving.opening import opened

    paths: dict[str, Path] = {}
    for word in words:
        name, equals, path = word.partition("=")
        if not equals or os.path.exists(word):  # Path: an error if long
            name, path = Path(os.path.abspath(word)).stem, word
        if not re.fullmatch(r"[\w.-]{1,60}", name):
            raise InputError(
                f"{word}: the name {name[:60]!r}; expected 1 to 60 letters, digits, or any of "
                ". _ -: write name=FILE"
            )
        if name in paths:
            raise InputError(f"{word}: a second model called {name}; write name=FILE")
        paths[name] = Path(path)
    return {name: opened(path, limits) for name, path in paths.items()}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="anomalyncd serve",
        description="Classify photographs sent over HTTP: POST /predict, and a page at / for "
        f"people. With the environment variable {KEY}, requests must know the key.",
    )
    parser.add_argument(
        "models",
        nargs="+",
        metavar="FILE_OR_RUN",
        help="an exported file (no torch is needed), or a run's folder; name=FILE gives a name",
    )
    parser.add_argument("--port", type=int, default=8000, help="0: a free one (default 8000)")
    parser.add_argument("--host", default="127.0.0.1", help=f"others need {KEY}")
    parser.add_argument("--threads", type=int, default=0, help="default: one for each core")
    parser.add_argument("--queue", type=int, default=64, help="photographs that may wait")
    parser.add_argument("--batch", type=int, default=16, help="photographs classified at once")
    parser.add_argument("--max-megabytes", type=int, default=32, help="of a request")
    parser.add_argument("--max-megapixels", type=int, default=40, help="of a photograph")
    parser.add_argument("--timeout", type=float, default=30, help="seconds for a request")
    parser.add_argument("--unknown-share", type=float, default=UNKNOWN_SHARE)
    parser.add_argument(
        "--allow-url",
        metavar="PREFIX",
        help='requests may name an address below this one, as JSON {"url": …}; default: none',
    )
    return parser
