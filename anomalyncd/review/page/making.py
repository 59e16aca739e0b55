"""What the page makes besides decisions: a learned run, and a look at a photograph."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from anomalyncd.errors import InputError
from anomalyncd.inference.similarity import directions, nearest
from anomalyncd.review.page import views
from anomalyncd.review.page.views import Tile
from anomalyncd.review.session import Review
from anomalyncd.search import runs
from anomalyncd.types import Box

_SHOWN = 12  # regions like one of the photograph's
_MOST = 8  # regions of the photograph


def learn(review: Review) -> list[str]:
    """Run `anomalyncd learn` in a process of its own; what it printed.

    Raises:
        InputError: it failed; with its message.
    """
    command = [sys.executable, "-m", "anomalyncd", "learn", str(review.run.resolve())]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines() or ["it was stopped"]
        raise InputError(last[-1].removeprefix("error: "))
    return done.stdout.strip().splitlines()


def like(review: Review, content: bytes) -> list[tuple[Box, list[tuple[str, Tile]]]]:
    """Known regions like those of a photograph, which is looked at and not kept.

    Args:
        review: of a run.
        content: of an image file.

    Returns:
        Each region of the photograph, with the names and tiles of those most like it.

    Raises:
        InputError: it is no image, too large, or the run's detector needs more than it.
    """
    known, state = review.regions, review.state
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "photograph.png")  # what it is, its content tells
        place.write_bytes(content)
        try:
            boxes, tokens = runs.regions_of(review.run, place)
        except InputError as error:
            raise InputError(str(error).replace(str(place), "this photograph")) from error
    found = []
    for box, token in list(zip(boxes, directions(tokens), strict=True))[:_MOST]:
        rows, _ = nearest(known.tokens, token, _SHOWN)
        names = [state.name_of(state.class_of(row)) for row in rows.tolist()]
        found.append((box, list(zip(names, views.tiles(review, state, rows), strict=True))))
    return found
