"""New photographs as one self-contained page, in the look of a run's report: unknowns first, and
beside each region the most similar ones that the run knows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anomalyncd.data.images import SUFFIXES, read_image
from anomalyncd.errors import InputError
from anomalyncd.results.pages import as_jpeg, heat_colours, write_page
from anomalyncd.types import OUT_OF_SCOPE, UNKNOWN, VERDICTS

if TYPE_CHECKING:  # loads torch, and an exported file knows no regions
    from anomalyncd.results.known_regions import KnownRegions

TILES = 60  # regions of a class that are shown
MAX_PROBLEMS = 100  # photographs that could not be read, by name
_FIRST = 10  # tiles that are always visible; the others are collapsed
_KNOWN_SIZE = 80  # pixels of a known region, on high-resolution screens too
_MEANING = {
    VERDICTS[UNKNOWN]: "Regions unlike every class that the run has learned: look at these first.",
    VERDICTS[OUT_OF_SCOPE]: "Images unlike those that the run has seen: another product, another "
    "camera, or a photograph that failed.",
}


@dataclass(frozen=True)
class Tile:
    """A region of a new photograph."""

    id: str
    number: int  # its row in regions.csv
    confidence: float
    whole: bool  # nothing was segmented: the region is the entire image
    picture: str  # JPEG in base64: the region with its outline, and beside it the heat map
    similar: list[tuple[int, float]]  # rows of the run's regions.csv, and cosines


@dataclass
class Group:
    """The images and regions of a class, or of a verdict."""

    name: str
    is_verdict: bool
    images: int = 0
    regions: int = 0
    tiles: list[Tile] = field(default_factory=list)
    confidences: list[float] = field(default_factory=list)  # of its images

    def add_image(self, confidence: float) -> None:
        """Count an image of this class."""
        self.images += 1
        self.confidences.append(confidence)

    @property
    def confidence(self) -> float | None:
        """Median over its images."""
        return median(self.confidences) if self.confidences else None

    @property
    def meaning(self) -> str:
        return _MEANING.get(self.name, "") if self.is_verdict else ""

    @property
    def by_confidence(self) -> list[Tile]:
        return sorted(self.tiles, key=lambda tile: (-tile.confidence, tile.number))

    @property
    def first(self) -> list[Tile]:
        return self.by_confidence[:_FIRST]

    @property
    def others(self) -> list[Tile]:
        return self.by_confidence[_FIRST:]

    @property
    def left_out(self) -> int:
        return self.regions - len(self.tiles)


@dataclass(frozen=True)
class Data:
    """All that the page shows."""

    run: str
    images: int
    regions: int
    groups: list[Group]  # verdicts first
    problems: dict[str, str]  # photographs that could not be read, and why
    search_range: tuple[float, float]
    known: KnownRegions | None  # None: the run kept nothing that can be compared with
    resize_mode: str


@dataclass(frozen=True)
class Known:
    """A region of the run."""

    name: str  # of its class
    picture: str  # "" if its photograph is not there any more


def write(path: Path, data: Data) -> None:
    """Write the page atomically."""
    rows = {row for group in data.groups for tile in group.tiles for row, _ in tile.similar}
    write_page(
        path,
        "predictions.html.j2",
        d=data,
        title=PurePath(data.run).name or data.run,
        known=_known(data.known, rows),
        heat_colours=heat_colours(),
        max_problems=MAX_PROBLEMS,
    )


def _known(regions: KnownRegions | None, rows: Iterable[int]) -> dict[int, Known]:
    """The known regions that are shown, each photograph read once."""
    found: dict[int, Known] = {}
    if regions is None:
        return found
    path, image = None, None
    for row in sorted(row for row in rows if 0 <= row < len(regions.images)):
        if regions.images[row] != path:
            path = regions.images[row]
            image = _photograph(path)
        box = tuple(regions.boxes[row].tolist())
        found[row] = Known(regions.class_names[row], _cut(image, box) if image is not None else "")
    return found


def picture_of_known(regions: KnownRegions, row: int) -> str:
    """JPEG in base64 of a known region; "" if its photograph is not there any more."""
    return _known(regions, [row])[row].picture


def _photograph(path: Path) -> NDArray[np.uint8] | None:
    """A photograph that a run names, if it is still there; the run may be from elsewhere."""
    try:
        is_file = path.suffix.lower() in SUFFIXES and path.is_file()
        return read_image(path) if is_file else None
    except (OSError, ValueError, InputError):
        return None


def _cut(image: NDArray[np.uint8], box: tuple[int, ...]) -> str:
    """The part of an image in a box, made square with black bars; "" if it lies outside."""
    height, width = image.shape[:2]
    left, top = max(box[0], 0), max(box[1], 0)
    part = image[top : min(box[3], height), left : min(box[2], width)]
    if part.size == 0:
        return ""
    picture = Image.fromarray(part)
    picture.thumbnail((_KNOWN_SIZE, _KNOWN_SIZE))
    square = Image.new("RGB", (_KNOWN_SIZE, _KNOWN_SIZE))
    square.paste(picture, ((_KNOWN_SIZE - picture.width) // 2, (_KNOWN_SIZE - picture.height) // 2))
    return as_jpeg(np.asarray(square))
