"""The page's addresses."""

from __future__ import annotations

import json
import secrets
import shlex
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI, Request
from fastapi.exceptions import HTTPException
from fastapi.responses import HTMLResponse, PlainTextResponse, Response
from fastapi.staticfiles import StaticFiles
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from numpy.typing import NDArray
from starlette.concurrency import run_in_threadpool

from anomalyncd.decisions.naming import LONGEST
from anomalyncd.decisions.propagation import Kinds
from anomalyncd.decisions.state import State
from anomalyncd.errors import InputError
from anomalyncd.review import exports, proposals, questions, scatter
from anomalyncd.review.neighbours import centres
from anomalyncd.review.page import making, views
from anomalyncd.review.page.answers import answer, confirmations
from anomalyncd.review.page.heat import Maps
from anomalyncd.review.page.pictures import LARGE, THUMBNAIL, Pictures
from anomalyncd.review.page.security import PHOTOGRAPHS, Guard
from anomalyncd.review.page.views import Filters
from anomalyncd.review.session import Review
from anomalyncd.runtime.console import printable

_HERE = Path(__file__).parent
_PATIENCE = 0.3  # seconds that a view waits for which regions look alike
_CHUNK = 200  # tiles in one answer
_FOREVER = {"Cache-Control": "private, max-age=31536000, immutable"}  # the address has a key


def create(review: Review, token: str, port: int) -> Guard:
    """The page of a review, for any ASGI server.

    Args:
        review: of a run.
        token: what a request must know.
        port: that the server listens on.
    """
    page = _Page(review)
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.mount("/static", StaticFiles(directory=_HERE / "static"))
    addresses: list[tuple[str, Callable[..., Response]]] = [
        ("/", page.classes),
        ("/regions", page.regions),
        ("/tiles", page.tiles),
        ("/region", page.region),
        ("/thumbnail", page.thumbnail),
        ("/photograph", page.photograph),
        ("/question", page.question),
        ("/split", page.split),
        ("/map", page.map),
        ("/map/points", page.points),
        ("/history", page.history),
        ("/ask", page.ask),
        ("/export", page.export),
        ("/version", page.version),
    ]
    for path, view in addresses:
        app.add_api_route(path, view, methods=["GET"], response_model=None)

    async def decide(request: Request) -> Response:
        form = await request.form(max_files=0, max_fields=20)
        given = {key: value for key, value in form.items() if isinstance(value, str)}
        return await run_in_threadpool(page.decide, given)

    async def similar(request: Request) -> Response:
        return await run_in_threadpool(page.similar, await request.body())

    app.add_api_route("/decide", decide, methods=["POST"], response_model=None)
    app.add_api_route("/learn", page.learn, methods=["POST"], response_model=None)
    app.add_api_route(PHOTOGRAPHS, similar, methods=["POST"], response_model=None)

    @app.exception_handler(InputError)
    def refused(_: Request, error: Exception) -> Response:
        return PlainTextResponse(printable(str(error)), 409)

    return Guard(app, token, port)


class _Page:
    def __init__(self, review: Review) -> None:
        self._review = review
        self._maps = Maps(review.run)
        self._pictures = Pictures(review, self._maps)
        self._key = secrets.token_hex(4)  # in addresses of pictures, which a browser keeps
        self._places: NDArray[np.float32] | None = None
        self._drawing: threading.Thread | None = None
        # Many regions take seconds, and the first view must not wait for them.
        self._comparing = threading.Thread(target=lambda: review.graph, daemon=True)
        self._comparing.start()
        self._templates = Environment(
            loader=FileSystemLoader(_HERE / "templates"),
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=StrictUndefined,
        )
        self._templates.globals["longest"] = LONGEST
        self._templates.filters["shown"] = printable
        self._templates.filters["short"] = views.short

    def classes(self, request: Request) -> Response:
        found = views.groups(self._review, strips=True)
        return self._page("classes", request, groups=found)

    def regions(self, request: Request) -> Response:
        filters = Filters.of(request.query_params)
        state = self._review.state
        known = filters.class_id in state.sizes()
        return self._page(
            "regions",
            request,
            filters=filters,
            total=len(views.listed(self._review, filters)),
            groups=views.groups(self._review, strips=False),
            group=views.group(self._review, state, filters.class_id, 0) if known else None,
        )

    def tiles(self, request: Request) -> Response:
        """A part of a list, or the regions that are named."""
        query = request.query_params
        if "rows" in query:
            rows = np.array(self._rows(query["rows"])[:_CHUNK], np.int64)
            begin = 0
        else:
            begin = _whole(query.get("from", "0"))
            rows = views.listed(self._review, Filters.of(query))[begin : begin + _CHUNK]
        shown = views.tiles(self._review, self._review.state, rows, begin)
        return self._html("tiles", tiles=shown, total=_whole(query.get("total", "0")))

    def region(self, request: Request) -> Response:
        row = self._row(request)
        state, known = self._review.state, self._review.regions
        return self._html(
            "region",
            row=row,
            image=known.ids[row],
            path=str(known.images[row]),
            box=known.boxes[row].tolist(),
            area=int(known.areas[row]),
            confidence=float(known.confidences[row]),
            decided=bool(state.decided[row]),
            group=views.group(self._review, state, state.class_of(row), 0),
            heat="heat" in request.query_params,
            has_heat=self._maps.are_there,
            similar=views.similar(self._review, row, 12),
        )

    def thumbnail(self, request: Request) -> Response:
        size = LARGE if "large" in request.query_params else THUMBNAIL
        return _picture(self._pictures.thumbnail(self._row(request), size))

    def photograph(self, request: Request) -> Response:
        heat = "heat" in request.query_params
        return _picture(self._pictures.photograph(self._row(request), heat=heat))

    def question(self, request: Request) -> Response:
        skipped = request.query_params.get("skip", "")
        rows = frozenset(self._rows(skipped))
        known, state = self._review.regions, self._review.state
        self._comparing.join()
        found = questions.ask(
            known.tokens,
            self._review.graph,
            self._review.kinds(state),
            known.areas,
            state,
            self._review.version + len(rows),
            rows,
        )
        about: dict[str, Any] = {"region": None, "pair": None, "unnamed": False}
        if isinstance(found, questions.OfRegion):
            about["region"] = found
            about["unnamed"] = state.is_unnamed(found.class_id)
            about["group"] = views.group(self._review, state, found.class_id, 0)
            examples = np.array(found.examples, np.int64)
            about["examples"] = views.tiles(self._review, state, examples)
            others = found.others[:8]
            about["others"] = [
                views.group(self._review, state, one, 1, typical=True) for one in others
            ]
            about["image"] = known.ids[found.region]
        elif isinstance(found, questions.OfPair):
            pair = (found.first, found.second)
            about["pair"] = [views.group(self._review, state, one, 8, typical=True) for one in pair]
        return self._page("question", request, skipped=skipped, **about)

    def split(self, request: Request) -> Response:
        class_id = request.query_params.get("class", "")
        number = request.query_params.get("parts", "2")
        if number not in map(str, range(2, proposals.MAX_PARTS + 1)):
            raise HTTPException(404)
        state = self._review.state
        rows = state.members(class_id)
        if not len(rows) or state.is_fixed(class_id):
            raise InputError("this class does not exist any more; go back to the classes")
        found = proposals.split(self._review.regions.tokens[rows], int(number))
        parts = [
            (int((found == part).sum()), views.tiles(self._review, state, rows[found == part][:16]))
            for part in range(int(found.max()) + 1)
        ]
        return self._page(
            "split",
            request,
            group=views.group(self._review, state, class_id, 0),
            parts_found=parts,
            number=int(number),
            numbers=range(2, min(proposals.MAX_PARTS, len(rows)) + 1),
            of=proposals.fingerprint(rows),
        )

    def map(self, request: Request) -> Response:
        self._start_drawing()
        found = views.groups(self._review, strips=False)
        return self._page("map", request, groups=found, ready=self._places is not None)

    def points(self, request: Request) -> Response:
        """Where regions lie: n pairs of float32, then for each its class and whether decided.

        A class is the place in `class_ids`; 204 while the map is being computed.
        """
        self._start_drawing()
        if self._places is None:
            return Response(status_code=204)
        state = self._review.state
        colours = [views.colour(state, class_id) for class_id in state.class_ids]
        shown = np.array(colours, np.int8)[state.assigned]
        content = self._places.tobytes() + shown.tobytes() + state.decided.tobytes()
        return Response(content, media_type="application/octet-stream")

    def history(self, request: Request) -> Response:
        return self._page("history", request, decisions=views.history(self._review))

    def ask(self, request: Request) -> Response:
        """A dialog's content: which name, or which class."""
        query = request.query_params
        what = query.get("what", "")
        if what not in ("name", "merge", "move", "keys", "export", "learn"):
            raise HTTPException(404)
        state = self._review.state
        class_id = query.get("class", "")
        own = views.group(self._review, state, class_id, 0) if class_id in state.sizes() else None
        if own is None and what in ("name", "merge"):
            raise InputError("this class does not exist any more")
        choices = [
            views.group(self._review, state, one, 1)
            for one in self._nearest(class_id, query.get("row", ""))
        ]
        return self._html(
            "ask",
            what=what,
            group=own,
            choices=choices,
            decided=int(state.decided.sum()),
            regions=len(state.decided),
            command=shlex.quote(str(self._review.run)),
        )

    def learn(self) -> Response:
        """Make a run of the decisions; what was learned."""
        return self._html("learned", lines=making.learn(self._review))

    def similar(self, content: bytes) -> Response:
        """Regions like those of a photograph that was dropped onto the page."""
        return self._html("dropped", found=making.like(self._review, content))

    def export(self, request: Request) -> Response:
        kind = request.query_params.get("as", "")
        if kind == "csv":
            content = exports.as_csv(self._review).encode("utf-8", "surrogateescape")
        elif kind == "coco":
            content = json.dumps(exports.as_coco(self._review)).encode()
        else:
            raise HTTPException(404)
        name = {"csv": "regions_named.csv", "coco": "regions_coco.json"}[kind]
        media = {"csv": "text/csv; charset=utf-8", "coco": "application/json"}[kind]
        return Response(
            content,
            media_type=media,
            headers={"Content-Disposition": f'attachment; filename="{name}"'},
        )

    def version(self) -> Response:
        """How many decisions there are, so that another window sees that it is out of date."""
        self._review.refresh()
        return PlainTextResponse(str(self._review.version))

    def decide(self, form: dict[str, str]) -> Response:
        """Keep one decision; the answer's header says what it was."""
        if form.get("what") == "undo" and not form.get("decision"):
            undone = self._review.undo()
            message = "Undone" if undone else "There is nothing to undo"
        elif form.get("what") == "confirm" and "class" not in form:
            actions, message = confirmations(self._review, form)
            self._review.decide(*actions)
        else:
            action, message = answer(self._review, form)
            self._review.decide(action)
        said = {"decided": {"message": message, "version": self._review.version}}
        return Response(status_code=204, headers={"HX-Trigger": json.dumps(said)})

    def _nearest(self, class_id: str, row: str) -> list[str]:
        """Kinds to choose from, the most similar to a region or class first."""
        state, tokens = self._review.state, self._review.regions.tokens
        kinds, means, _ = centres(tokens, state)
        if rows := self._rows(row):
            order = np.argsort(-(means @ tokens[rows[0]]), kind="stable")
        elif class_id in kinds:
            order = np.argsort(-(means @ means[kinds.index(class_id)]), kind="stable")
        else:
            order = np.arange(len(kinds))
        return [kinds[i] for i in order if kinds[i] != class_id]

    def _kinds(self, state: State) -> Kinds | None:
        self._comparing.join(_PATIENCE)
        return None if self._comparing.is_alive() else self._review.kinds(state)

    def _start_drawing(self) -> None:
        """Compute the map once, while the page is used."""

        def draw() -> None:
            self._places = scatter.places(self._review.run, self._review.regions.tokens)

        if self._drawing is None:
            self._drawing = threading.Thread(target=draw, daemon=True)
            self._drawing.start()

    def _row(self, request: Request) -> int:
        rows = self._rows(request.query_params.get("row", ""))
        if len(rows) != 1:
            raise HTTPException(404)
        return rows[0]

    def _rows(self, text: str) -> list[int]:
        """The regions that an address names; what names none of the run is left out."""
        count = len(self._review.regions.ids)
        return [int(row) for row in text.split(",") if _is_whole(row) and int(row) < count]

    def _page(self, name: str, request: Request, **values: Any) -> Response:
        self._review.refresh()
        known, state = self._review.regions, self._review.state
        path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return self._html(
            name,
            view=name,
            address=path,
            title=self._review.run.name,
            where=str(self._review.run),
            sure=round(100 * questions.SURE),
            quality=questions.quality(self._kinds(state), known.areas, state),
            version=self._review.version,
            warning=self._review.warning,
            **values,
        )

    def _html(self, name: str, **values: Any) -> Response:
        text = self._templates.get_template(f"{name}.html.j2").render(key=self._key, **values)
        return HTMLResponse(text.encode("utf-8", "replace"))


def _picture(content: bytes | None) -> Response:
    if content is None:
        gone = (_HERE / "static" / "gone.svg").read_bytes()
        return Response(gone, media_type="image/svg+xml")
    return Response(content, media_type="image/jpeg", headers=_FOREVER)


def _whole(text: str) -> int:
    if not _is_whole(text):
        raise HTTPException(404)
    return int(text)


def _is_whole(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 9
