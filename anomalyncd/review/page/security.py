"""Who may use the page: this machine's user with the token, from the page itself and nowhere else.

The server listens on the loopback address only. A web site that the user visits meanwhile could
still send requests there; so each request needs the token, which the address holds first and then
a cookie that other sites cannot use, the right name of the host (else a site could give its own
name this machine's address), and, to change anything, the origin of the page.
"""

from __future__ import annotations

import hmac
from collections.abc import Collection
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY = 4_000_000  # bytes; 100,000 selected regions take 600,000
MAX_PHOTOGRAPH = 100_000_000  # bytes of one that is dropped onto the page
PHOTOGRAPHS = "/similar"  # the address that takes one
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Guard:
    """Refuses what does not come from the page, and adds the headers that protect it."""

    def __init__(self, app: ASGIApp, token: str, port: int) -> None:
        self._app, self._token = app, token
        self._hosts = host_headers(("127.0.0.1", "localhost"), port)
        self._cookie = f"anomalyncd_review_{port}"  # cookies are shared by all ports of a host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def protected(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        answer = self._answer(scope)
        await (answer or self._app)(scope, receive, protected)

    def _answer(self, scope: Scope) -> Response | None:
        """The answer to a request that does not reach the page; None if it may."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if host not in self._hosts:
            return PlainTextResponse("unknown host: use the printed address", 421)
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = next((value for name, value in query if name == "token"), None)
        if scope["method"] == "GET" and given is not None and self._is_token(given):
            # The token leaves the address, so that it is in no history, bookmark or picture.
            rest = urlencode([pair for pair in query if pair[0] != "token"])
            answer = RedirectResponse(_own_path(scope["path"]) + (f"?{rest}" if rest else ""), 303)
            answer.set_cookie(self._cookie, self._token, httponly=True, samesite="strict")
            return answer
        if not self._is_token(_cookie(headers, self._cookie)):
            return PlainTextResponse(
                "This page needs its token: open the address that anomalyncd review printed.", 403
            )
        if scope["method"] in ("GET", "HEAD"):
            return None
        if headers.get("origin") != f"http://{host}":
            return PlainTextResponse("refused: sent by another site", 403)
        length = headers.get("content-length", "")
        most = MAX_PHOTOGRAPH if scope["path"] == PHOTOGRAPHS else MAX_BODY
        if not is_number(length) or is_above(length, most):
            return PlainTextResponse(f"refused: more than {most:,} bytes", 413)
        return None

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self._token.encode())


def host_headers(names: Collection[str], port: int) -> frozenset[str]:
    """What the header Host holds in a request to one of these names; browsers leave out port 80."""
    with_port = {f"{name}:{port}" for name in names}
    return frozenset(with_port.union(names) if port == 80 else with_port)


def is_number(length: str) -> bool:
    """Whether a Content-Length is one."""
    return length.isascii() and length.isdigit()


def is_above(length: str, most: int) -> bool:
    """Whether a number is above a bound; it may have thousands of digits."""
    return len(length) > 12 or int(length) > most


def _own_path(path: str) -> str:
    """`//site/` would lead to another site."""
    return "/" + path.lstrip("/\\")


def _cookie(headers: Headers, name: str) -> str:
    # Other services of this machine set cookies for its name, too, and some are not valid.
    return cookie_parser(headers.get("cookie", "")).get(name, "")
