"""The addresses of the service."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import HTTPException
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from fastapi.staticfiles import StaticFiles
from PIL import Image
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

import anomalyncd
from anomalyncd.data.images import open_bytes
from anomalyncd.errors import InputError
from anomalyncd.serving.guard import Guard, Room, busy, refusal
from anomalyncd.serving.line import Failed, Full, Line
from anomalyncd.serving.metrics import Metrics
from anomalyncd.serving.models import Answer, Model
from anomalyncd.serving.uploads import Fetch, Upload, uploads

_PAGE = Path(__file__).parent / "page"


@dataclass(frozen=True)
class Bounds:
    """What one request, and all of them together, may use."""

    megabytes: int = 32  # of a request's body
    megapixels: int = 40  # of a photograph
    seconds: float = 30  # from a request's first byte to its answer
    waiting: int = 64  # photographs in line
    together: int = 16  # photographs that are classified at once


class Service:
    """Models, the line before them, and the application that serves them."""

    def __init__(
        self,
        models: Mapping[str, Model],
        bounds: Bounds,
        *,
        host: str = "127.0.0.1",
        port: int,
        key: str | None = None,
        allow_url: str | None = None,
    ) -> None:
        """
        Args:
            models: by name, at least one; the first answers if none is named.
            bounds: of requests.
            host: address that the server listens on.
            port: of it.
            key: that requests must know; None: they come from this machine only.
            allow_url: prefix of addresses that may be fetched; None: none may.

        Raises:
            InputError: the prefix is no address.
        """
        max_bytes = bounds.megabytes * 1_000_000
        self.metrics = Metrics()
        self.line = Line(self.metrics, longest=bounds.waiting, together=bounds.together)
        self._models, self._bounds = dict(models), bounds
        self._fetch = None if allow_url is None else Fetch(allow_url, max_bytes, bounds.seconds)
        self.app = Guard(
            self._routes(),
            self.metrics,
            key=key,
            host=host,
            port=port,
            max_bytes=max_bytes,
            room=Room(2 * bounds.waiting, 8 * bounds.megabytes),
        )

    def end(self) -> None:
        """Tell load balancers, and clients with each answer, that the service is about to end."""
        self.app.is_ending = True

    def close(self) -> None:
        """Classify what waits, and stop."""
        self.line.close()

    def _routes(self) -> FastAPI:
        app = FastAPI(
            title="anomalyncd",
            version=anomalyncd.__version__,
            description="Classifies photographs of a product: its kinds of defects, and where.",
            docs_url=None,  # FastAPI's page loads its scripts from elsewhere
            redoc_url=None,
        )
        app.mount("/static", StaticFiles(directory=_PAGE / "static"))
        for path, name in (("/", "index.html"), ("/docs", "docs.html")):
            app.add_api_route(path, _file(name), include_in_schema=False)
        app.add_api_route(
            "/predict", self.predict, methods=["POST"], openapi_extra=_BODY, responses=_ANSWERS
        )
        for path, answer in (
            ("/card", self.card),
            ("/known", self.known),
            ("/healthz", self.healthz),
            ("/readyz", self.readyz),
            ("/metrics", self.shown_metrics),
        ):
            app.add_api_route(path, answer)

        @app.exception_handler(Exception)
        def failed(_: Request, error: Exception) -> Response:
            return refusal(500, "the service failed on this request; its log says why")

        return app

    async def healthz(self) -> Response:
        """200 while photographs can be classified; restart the service if not."""
        alive = self.line.is_alive
        return PlainTextResponse("ok" if alive else "the model has stopped", 200 if alive else 503)

    async def readyz(self) -> Response:
        """200 while requests should be sent; 503 when the service is about to end."""
        if self.app.is_ending:
            return PlainTextResponse("about to end", 503)
        return PlainTextResponse("ready")

    async def shown_metrics(self) -> Response:
        """Counts in the text format of Prometheus."""
        return PlainTextResponse(
            self.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8"
        )

    async def card(self) -> Response:
        """What the models say of themselves, and the limits of a request."""
        bounds = self._bounds
        limits = {"megabytes": bounds.megabytes, "megapixels": bounds.megapixels}
        return JSONResponse(
            {
                "models": {name: model.card for name, model in self._models.items()},
                "limits": {**limits, "seconds": bounds.seconds},
            }
        )

    async def known(self, region: int, model: str = "") -> Response:
        """A known region of a run, by its number in an answer: JPEG."""
        picture = await run_in_threadpool(self._named(model)[1].known, region)
        if picture is None:
            raise HTTPException(404, "no such region, or its photograph is gone")
        return Response(picture, media_type="image/jpeg")

    async def predict(self, request: Request, model: str = "") -> Response:
        """Classify one or more photographs.

        Send the files of a form, or the bytes of one photograph. `model` names one of `/card`;
        without it the first one answers. Boxes and outlines are in pixels of the photograph.
        """
        begun = time.monotonic()
        name, chosen = self._named(model)
        self.app.retry_after = self.line.wait
        answers: list[Answer] = []
        try:
            async with asyncio.timeout(self._bounds.seconds):
                given = await uploads(request, self._fetch)
                if len(given) > (most := self._bounds.waiting):
                    raise HTTPException(
                        413,
                        f"{len(given)} photographs; expected at most {most}: send them in parts",
                    )
                opened = await run_in_threadpool(self._opened, given)
                pictures = [one for one in opened if isinstance(one, Image.Image)]
                futures = iter(self.line.put(chosen, pictures))
                waiting = [
                    next(futures) if isinstance(one, Image.Image) else _done(one) for one in opened
                ]
                answers = await _answers(given, waiting)
        except TimeoutError:
            raise HTTPException(
                408, f"no answer within {self._bounds.seconds:g} s; send it again"
            ) from None
        except ClientDisconnect:
            raise HTTPException(400, "the connection ended before the request did") from None
        except Full:
            return busy(self.line.wait)
        except Failed:
            raise HTTPException(500, "the service failed on this photograph") from None
        for answer in answers:
            if "class_name" in answer:
                self.metrics.photographs.add(name, answer["class_name"])
        self.metrics.seconds.observe(time.monotonic() - begun)
        if all("error" in answer for answer in answers):
            raise HTTPException(422, answers[0]["error"])
        return JSONResponse({"model": name, "photographs": answers})

    def _named(self, model: str) -> tuple[str, Model]:
        name = model or next(iter(self._models))
        if name not in self._models:
            raise HTTPException(404, f"no such model; there are {', '.join(self._models)}")
        return name, self._models[name]

    def _opened(self, given: Sequence[Upload]) -> list[Image.Image | InputError]:
        """Each photograph with its header checked, or why it cannot be used."""
        found: list[Image.Image | InputError] = []
        for one in given:
            try:
                found.append(open_bytes(one.content, one.name, self._bounds.megapixels))
            except InputError as error:
                found.append(error)
        return found


async def _answers(given: Sequence[Upload], waiting: Sequence[Future[Answer]]) -> list[Answer]:
    """Wait for all; a photograph that cannot be used has its error as answer."""
    try:
        found = await asyncio.gather(
            *(asyncio.wrap_future(one) for one in waiting), return_exceptions=True
        )
    except asyncio.CancelledError:
        for one in waiting:
            one.cancel()
        raise
    answers: list[Answer] = []
    for upload, answer in zip(given, found, strict=True):
        if isinstance(answer, InputError):
            answers.append({"file": upload.name, "error": str(answer)})
        elif isinstance(answer, BaseException):
            raise answer
        else:
            answers.append({"file": upload.name, **answer})
    return answers


def _done(error: InputError) -> Future[Answer]:
    future: Future[Answer] = Future()
    future.set_exception(error)
    return future


def _file(name: str) -> Any:
    async def page() -> Response:
        return FileResponse(_PAGE / name, media_type="text/html; charset=utf-8")

    return page


_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "file": {
                            "type": "array",
                            "items": {"type": "string", "format": "binary"},
                        }
                    },
                }
            },
            "image/*": {"schema": {"type": "string", "format": "binary"}},
            "application/json": {
                "schema": {"type": "object", "properties": {"url": {"type": "string"}}},
                "example": {"url": "http://camera.local/pictures/1.png"},
            },
        },
    }
}
_EXAMPLE = {
    "model": "screws",
    "photographs": [
        {
            "file": "1.png",
            "class_id": 2,
            "class_name": "class 2",
            "confidence": 0.97,
            "unknown_score": 0.6,
            "scope_score": 0.4,
            "nearest_class": "class 2",
            "width": 1024,
            "height": 1024,
            "regions": [
                {
                    "box": [410, 300, 520, 410],
                    "class_id": 2,
                    "class_name": "class 2",
                    "confidence": 0.97,
                    "anomaly_score": 0.8,
                    "area": 1630,
                    "unknown_score": 0.6,
                    "nearest_class": "class 2",
                    "outlines": [[[420, 310], [510, 310], [465, 400]]],
                }
            ],
        }
    ],
}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "One answer for each photograph; one that cannot be used has `error`.",
        "content": {"application/json": {"example": _EXAMPLE}},
    },
    401: {"description": "The key is missing or wrong."},
    408: {"description": "The request was not complete, or not answered, in time."},
    413: {"description": "Too many bytes, or more photographs than may wait."},
    415: {"description": "A body of another type."},
    422: {"description": "No photograph could be used; `detail` says why."},
    429: {"description": "Too many photographs wait; `Retry-After` says for how many seconds."},
}
