"""Known regions that resemble those of a photograph.

    anomalyncd similar RUN PHOTO [--top 5] [--json] [--class NAME] [--product NAME]
                       [--maps DIR] [search.path=DIR | search.url=URL]

The run's regions are added to a collection first, if they are not in it: RUN/search, the folder DIR
or a Qdrant server. A run and its extensions that are in one place are searched together; the
features of other networks cannot be compared. The key of a server is read from QDRANT_API_KEY.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from anomalyncd.cli.finished.order import require_run_first
from anomalyncd.cli.settings import entry
from anomalyncd.errors import InputError
from anomalyncd.runtime.console import printable

if TYPE_CHECKING:
    from anomalyncd.search.collection import Collection
    from anomalyncd.search.runs import Found, Place

_PATH, _URL = "search.path", "search.url"
_MOST = 10_000  # regions that are found
_WIDEST = 5_000  # characters of a line


def main() -> int:
    """Find and print; returns 0 on success."""
    parser = argparse.ArgumentParser(
        prog=entry.command(),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="the folder of a finished run")
    parser.add_argument("photo", metavar="PHOTO", type=Path, help="one photograph")
    parser.add_argument(
        "--maps", type=Path, help="a folder with its anomaly map, if the run kept no detector"
    )
    parser.add_argument("--top", type=int, default=5, help="how many regions to find")
    parser.add_argument("--json", action="store_true", help="print a JSON list")
    parser.add_argument("--class", dest="class_name", help="only regions of this class")
    parser.add_argument("--product", help="only regions of this product (a run's category)")
    parser.add_argument("settings", nargs="*", metavar=f"{_PATH}=DIR or {_URL}=URL")
    options = parser.parse_intermixed_args()
    with entry.one_line_errors(debug=False):
        found = _find(options)
        if options.json:
            json.dump([_as_json(one) for one in found], sys.stdout, indent=1)
            print()
        else:
            _show(found)
    return 1 if entry.failures else 0


def _find(options: argparse.Namespace) -> list[Found]:
    if not 1 <= options.top <= _MOST:
        raise InputError(f"--top {options.top}: expected 1 to {_MOST}")
    require_run_first(options.run, [options.photo], "similar")
    if options.photo.is_dir():
        raise InputError(f"{options.photo}: a folder; expected one photograph")
    if not options.photo.is_file():
        raise InputError(f"{options.photo}: no such file; expected one photograph")
    from anomalyncd.search import runs  # after validation: torch takes seconds to load
    from anomalyncd.search.collection import Wanted

    place = _place(options.settings, options.run)
    wanted = Wanted(options.class_name, options.product)
    try:
        with runs.opened(place, options.run) as collection:
            if added := runs.fill(collection, options.run):
                print(f"{added} regions of the run added to the collection", file=sys.stderr)
            _require_class(collection, options.class_name)
            boxes, tokens = runs.regions_of(options.run, options.photo, options.maps)
            return runs.similar(collection, boxes, tokens, options.top, wanted)
    except ModuleNotFoundError as error:
        raise InputError(
            f"{error.name} is not installed: pip install 'anomalyncd[search]'"
        ) from error


def _require_class(collection: Collection, name: str | None) -> None:
    """
    Raises:
        InputError: no region that is searched is of this class.
    """
    if name is not None and not collection.count({"class_name": name}):
        raise InputError(
            f"--class {name!r}: no such class; `anomalyncd review RUN` shows the names of RUN's"
        )


def _place(settings: list[str], run: Path) -> Place:
    from anomalyncd.search.runs import FOLDER, Place

    given = {}
    for setting in settings:
        key, _, value = setting.partition("=")
        if key not in (_PATH, _URL) or not value:
            raise InputError(f"{setting}: expected {_PATH}=DIR or {_URL}=URL")
        given[key] = value
    if len(given) == 2:
        raise InputError(f"{_PATH} and {_URL} are given; a collection is in one place only")
    return Place(Path(given.get(_PATH, run / FOLDER)), given.get(_URL))


def _as_json(found: Found) -> dict[str, object]:
    entry_ = found.similar.entry
    return {
        "image": entry_.image,
        "box": list(entry_.box),
        "class_name": entry_.class_name,
        "score": round(found.similar.score, 6),
        "confidence": entry_.confidence,
        "product": entry_.product,
        "run": entry_.run,
        "region": entry_.number,
        "of_box": list(found.box),
    }


def _show(found: list[Found]) -> None:
    table = Table("score", "class", "product", "image", "box", "resembles")
    for one in found:
        of = one.similar.entry
        box = " ".join(map(str, of.box))
        cells = (of.class_name, of.product, of.image, box, " ".join(map(str, one.box)))
        table.add_row(f"{one.similar.score:.3f}", *(Text(printable(cell)) for cell in cells))
    out = Console(highlight=False, width=_WIDEST)  # the terminal wraps; a path stays in one piece
    out.print(table if found else "nothing similar: no defect found, or no such known region")
