"""Serve the page on this machine until it is stopped."""

from __future__ import annotations

import socket
from collections.abc import Callable

import uvicorn

from anomalyncd.errors import InputError
from anomalyncd.review.page.app import create
from anomalyncd.review.session import Review

_ADDRESS = "127.0.0.1"  # no other machine can reach it


def serve(review: Review, port: int, token: str, say: Callable[[str], None]) -> None:
    """Serve until Ctrl-C.

    Args:
        review: of a run.
        port: to listen on; 0: a free one.
        token: that the address holds.
        say: is given the address, once it can be opened.

    Raises:
        InputError: the port cannot be used.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    with listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((_ADDRESS, port))
        except OSError as error:
            raise InputError(
                f"--port {port}: cannot be used ({error.strerror}); leave it out for a free one"
            ) from error
        listener.listen(128)
        port = listener.getsockname()[1]
        config = uvicorn.Config(
            create(review, token, port), log_level="warning", access_log=False, server_header=False
        )
        say(f"http://{_ADDRESS}:{port}/?token={token}")
        uvicorn.Server(config).run(sockets=[listener])
