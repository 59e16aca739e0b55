"""What every request passes: who may ask, how much may be sent, and the headers of each answer.

Without a key the service listens on the loopback address only. A web site that the user visits
meanwhile could still send requests there; so then each request needs the right name of the host
(else a site could give its own name this machine's address), and no other site as its origin.
"""

from __future__ import annotations

import hmac
import threading

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from anomalyncd.review.page.security import HEADERS, host_headers, is_above, is_number
from anomalyncd.serving.metrics import Metrics

PUBLIC = ("/healthz", "/readyz", "/", "/docs", "/openapi.json")  # and /static: no key is needed
PREDICT = "/predict"
KNOWN_PATHS = (*PUBLIC, PREDICT, "/metrics", "/card", "/known")


class Room:
    """Requests, and bytes of their bodies, that may be in memory at the same time."""

    def __init__(self, requests: int, megabytes: int) -> None:
        self._requests, self._bytes = requests, megabytes * 1_000_000
        self._lock = threading.Lock()

    def take(self, size: int) -> bool:
        """Take room for one more request; False: there is none."""
        with self._lock:
            if self._requests < 1 or self._bytes < size:
                return False
            self._requests -= 1
            self._bytes -= size
            return True

    def give_back(self, size: int) -> None:
        """After `take`."""
        with self._lock:
            self._requests += 1
            self._bytes += size


class Guard:
    """Refuses what may not pass, before its body is read."""

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        *,
        key: str | None,
        host: str,
        port: int,
        max_bytes: int,
        room: Room,
    ) -> None:
        """
        Args:
            app: what is guarded.
            metrics: counted on.
            key: that a request must know; None: requests come from this machine only.
            host: address that the server listens on.
            port: of it.
            max_bytes: of a request's body.
            room: for requests with a body.
        """
        self._app, self._metrics, self._key = app, metrics, key
        bound = f"[{host}]" if ":" in host else host
        self._hosts = host_headers(("127.0.0.1", "localhost", "[::1]", bound), port)
        self._max_bytes, self._room = max_bytes, room
        self.retry_after = 1  # seconds; the line knows better
        self.is_ending = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"] if scope["path"] in KNOWN_PATHS else "other"

        async def protected(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._metrics.requests.add(path, str(message["status"]))
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers["Cache-Control"] = "no-store"
                # The rest of a refused body is not read; and no answer is followed by a request
                # that a service which ends would not see.
                if self.is_ending or (message["status"] >= 400 and scope["method"] == "POST"):
                    headers["Connection"] = "close"
            await send(message)

        headers = Headers(scope=scope)
        refused = self._refused(scope, headers)
        if refused is not None or scope["method"] in ("GET", "HEAD"):
            await (refused or self._app)(scope, receive, protected)
            return
        length = headers.get("content-length")
        size = self._max_bytes if length is None else int(length)
        if not self._room.take(size):
            await busy(self.retry_after)(scope, receive, protected)
            return
        try:
            await self._app(scope, _limited(receive, size), protected)
        finally:
            self._room.give_back(size)

    def _refused(self, scope: Scope, headers: Headers) -> Response | None:
        if self._key is not None:
            public = scope["path"] in PUBLIC or scope["path"].startswith("/static/")
            given = headers.get("authorization", "").removeprefix("Bearer ")
            if not public and not hmac.compare_digest(given.encode(), self._key.encode()):
                return refusal(
                    401, "the key is missing or wrong; send the header Authorization: Bearer KEY"
                )
        else:
            host = headers.get("host", "")
            if host not in self._hosts:
                return refusal(421, "unknown host: use the printed address")
            if headers.get("origin", f"http://{host}") != f"http://{host}":
                return refusal(403, "refused: sent by another site")
        length = headers.get("content-length")
        if length is not None and not is_number(length):
            return refusal(400, "Content-Length: expected a number")
        if length is not None and is_above(length, self._max_bytes):
            return refusal(413, f"more than {self._max_bytes:,} bytes")
        return None


def refusal(status: int, reason: str, headers: dict[str, str] | None = None) -> Response:
    """An answer in the form of all errors."""
    return JSONResponse({"detail": reason}, status, headers)


def busy(seconds: int) -> Response:
    """There is no room now."""
    return refusal(429, "too many photographs wait", {"Retry-After": str(seconds)})


def _limited(receive: Receive, size: int) -> Receive:
    """A body that has no length in its header must not be longer than what there is room for."""
    remaining = size

    async def limited() -> Message:
        nonlocal remaining
        message = await receive()
        remaining -= len(message.get("body", b""))
        if remaining < 0:
            raise HTTPException(413, f"more than {size:,} bytes")
        return message

    return limited
