"""Serve until SIGTERM or Ctrl-C; what has been accepted by then is answered."""

from __future__ import annotations

import asyncio
import ipaddress
import signal
import socket
import threading
from collections.abc import Callable
from types import FrameType

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from anomalyncd.errors import InputError
from anomalyncd.serving.app import Service

HEADER_SECONDS = 10.0  # until a request's headers are complete
_KEEP_ALIVE = 15  # seconds between two requests
_CONNECTIONS = 1000
_GOODBYE = 0.5  # seconds in which clients learn that the service ends, and balancers notice
_SHORTEST_KEY = 16


def is_loopback(host: str) -> bool:
    """Whether no other machine can reach an address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def require_safe(host: str, key: str | None) -> None:
    """
    Raises:
        InputError: other machines could use the service without a key, or the key is a bad one.
    """
    if key is not None and (len(key) < _SHORTEST_KEY or not key.isascii() or not key.isprintable()):
        raise InputError(
            f"ANOMALYNCD_API_KEY: expected at least {_SHORTEST_KEY} printable ASCII characters"
        )
    if key is None and not is_loopback(host):
        raise InputError(
            f"--host {host}: other machines could reach the service; set the environment variable "
            "ANOMALYNCD_API_KEY to a key that requests must send, or leave --host out"
        )


def listener(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0: on a free one.

    Raises:
        InputError: the address cannot be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host, port))
    except (OSError, OverflowError) as error:
        made.close()
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"--host {host} --port {port}: cannot be used ({reason})") from error
    made.listen(512)
    return made


def serve(service: Service, listening: socket.socket, say: Callable[[str], None]) -> None:
    """Serve until a signal.

    Args:
        service: is closed at the end.
        listening: a socket that listens.
        say: is given the address, once requests are answered.
    """
    config = uvicorn.Config(
        service.app,
        http=_Http,
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE,
        limit_concurrency=_CONNECTIONS,
    )
    # uvicorn raises the signal again when it has ended, which would end the process with an error.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    host, port = listening.getsockname()[:2]
    say(f"http://{f'[{host}]' if ':' in host else host}:{port}")
    with listening:
        _Server(config, service).run(sockets=[listening])
    service.close()


class _Server(uvicorn.Server):
    """At a signal, tells clients first and then ends; at a second one it ends at once."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._told = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._told:
            super().handle_exit(sig, frame)
            return
        self._told = True
        self._service.end()
        timer = threading.Timer(_GOODBYE, super().handle_exit, (sig, frame))
        timer.daemon = True
        timer.start()


class _Http(H11Protocol):
    """Closes connections whose next request does not come, or not in time, which uvicorn would
    keep."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._timer: asyncio.TimerHandle | None = None
        self._await_headers()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # Pieces of a request before its headers are complete leave the last one answered.
        if self.cycle is None or self.cycle.response_complete:
            self._await_headers()
        else:
            self._stop_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def _await_headers(self) -> None:
        """Close unless they are complete in time; more pieces of them give no more time."""
        if self._timer is None:
            self._timer = self.loop.call_later(HEADER_SECONDS, self.transport.close)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
