"""The photographs of a request: one or many files of a form, raw bytes, or an address."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath
from urllib.parse import SplitResult, unquote, urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from anomalyncd.errors import InputError

MOST_FILES = 32  # in one request
_MOST_FIELDS = 8
_LONGEST_NAME = 200  # characters
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Upload:
    """A photograph as it was sent."""

    name: str  # for people; never a path
    content: bytes


async def uploads(request: Request, fetch: Callable[[str], bytes] | None) -> list[Upload]:
    """Read a request's body.

    Args:
        request: its body has not been read yet, and is bounded.
        fetch: reads an address; None: addresses are refused.

    Raises:
        HTTPException: the body is of another type, or holds no photograph.
    """
    if "content-encoding" in request.headers:
        raise HTTPException(415, "Content-Encoding: send the file as it is")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await _of_form(request)
    if kind == "application/json":
        return [await _of_address(request, fetch)]
    if kind.startswith("image/") or kind == "application/octet-stream":
        return [Upload("photograph", await request.body())]
    raise HTTPException(
        415,
        f"Content-Type {kind[:100]!r}: expected multipart/form-data, image/…, "
        "application/octet-stream, or application/json",
    )


async def _of_form(request: Request) -> list[Upload]:
    try:
        async with request.form(max_files=MOST_FILES, max_fields=_MOST_FIELDS) as form:
            files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
            found = [Upload(_shown(file.filename or ""), await file.read()) for file in files]
    except UnicodeError:  # of the charset that the request names; Python knows some strange ones
        raise HTTPException(400, "the form cannot be decoded; send it as UTF-8") from None
    if not found:
        raise HTTPException(422, "no file in the form; expected one or more, of any field name")
    return found


async def _of_address(request: Request, fetch: Callable[[str], bytes] | None) -> Upload:
    if fetch is None:
        raise HTTPException(
            403, "addresses are not allowed; start the service with --allow-url PREFIX"
        )
    try:
        given = json.loads(await request.body())
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict) or not isinstance(given.get("url"), str):
        raise HTTPException(422, 'expected JSON of the form {"url": "http://…"}')
    try:
        return Upload(_shown(given["url"]), await run_in_threadpool(fetch, given["url"]))
    except InputError as error:
        raise HTTPException(422, str(error)) from error


def _shown(name: str) -> str:
    """The last part of a name that somebody else has chosen, in printable characters."""
    last = PurePosixPath(PureWindowsPath(name).name).name
    return "".join(c for c in last if c.isprintable())[:_LONGEST_NAME] or "photograph"


class Fetch:
    """Reads addresses below one prefix; redirects and proxies are not followed."""

    def __init__(self, prefix: str, max_bytes: int, seconds: float) -> None:
        """
        Args:
            prefix: such as `http://camera.local/pictures/`; its host counts as a whole.
            max_bytes: of an answer.
            seconds: in which it must be complete.

        Raises:
            InputError: the prefix is no such address.
        """
        self._prefix, self._max_bytes, self._seconds = urlsplit(prefix), max_bytes, seconds
        complete = self._prefix.scheme in _PORTS and self._prefix.hostname
        if not complete or not self._prefix.path.endswith("/") or "@" in self._prefix.netloc:
            raise InputError(
                f"--allow-url {prefix}: expected http:// or https://, a host and a path ending in /"
            )
        try:
            port = self._prefix.port
        except ValueError as error:
            raise InputError(f"--allow-url {prefix}: {error}") from error
        self._address = self._prefix.hostname, port or _PORTS[self._prefix.scheme]

    def __call__(self, address: str) -> bytes:
        """What an address holds.

        Raises:
            InputError: it is not below the prefix, cannot be read, or is too large or too slow.
        """
        given = self._below(address)
        deadline = time.monotonic() + self._seconds
        late = InputError(f"the address took longer than {self._seconds:g} s")
        try:
            with (
                socket.create_connection(self._address, self._seconds) as connected,
                _ended(connected, deadline),
            ):
                found = self._read(given, connected)
        except (OSError, http.client.HTTPException) as error:
            if time.monotonic() >= deadline:
                raise late from error
            raise InputError(f"the address cannot be read ({type(error).__name__})") from error
        if time.monotonic() >= deadline:  # it may hold more
            raise late
        return found

    def _read(self, given: SplitResult, connected: socket.socket) -> bytes:
        connection = http.client.HTTPConnection(given.netloc)
        connection.sock = connected
        if given.scheme == "https":
            context = ssl.create_default_context()
            connection = http.client.HTTPSConnection(given.netloc, context=context)
            connection.sock = context.wrap_socket(connected, server_hostname=given.hostname)
        with closing(connection):
            connection.request("GET", given._replace(scheme="", netloc="", fragment="").geturl())
            answer = connection.getresponse()
            if answer.status != 200:
                raise InputError(f"the address answers {answer.status}; expected 200")
            found = answer.read(self._max_bytes + 1)
        if len(found) > self._max_bytes:
            raise InputError(f"the address holds more than {self._max_bytes:,} bytes")
        return found

    def _below(self, address: str) -> SplitResult:
        """The parts of an address that is below the prefix."""
        prefix = self._prefix
        try:
            given = urlsplit(address)
        except ValueError:
            given = urlsplit("")
        same = (given.scheme, given.netloc) == (prefix.scheme, prefix.netloc)
        path = unquote(given.path)
        plain = address.isascii() and address.isprintable() and " " not in address
        above = "\\" in path or ".." in path.split("/") or "%" in path
        if not (same and plain and path.startswith(prefix.path)) or above:
            raise InputError("the address is not below the prefix of --allow-url")
        return given


@contextmanager
def _ended(connected: socket.socket, deadline: float) -> Iterator[None]:
    """Shut a connection down at a time, whatever it does then: each read has its own timeout."""
    with connected.dup() as held:  # of the same connection, also when TLS has taken over the other

        def end() -> None:
            with suppress(OSError):  # it has ended by itself
                held.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(deadline - time.monotonic(), end)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
