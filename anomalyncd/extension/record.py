"""extension.json: which run an extension extends, what it appended and moved, and why."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from anomalyncd.errors import InputError
from anomalyncd.storage import foreign
from anomalyncd.storage.class_list import ClassList

FILE = "extension.json"
FORMAT = 1
_MAX_BYTES = 50_000_000  # moved regions of a large pile


@dataclass(frozen=True)
class Appended:
    """A class that this extension appended."""

    id: int
    name: str
    regions: int  # unknown ones that it was made of
    images: int  # that they are from
    stability: float  # see `discovery.stability`


@dataclass(frozen=True)
class Moved:
    """A region of an earlier day whose class changed."""

    region: int  # its row in regions.csv
    image: str  # id of its photograph
    before: str  # name of its class, or `unknown`
    now: str


@dataclass(frozen=True)
class Extension:
    """One extension of a run."""

    format: int
    number: int  # 1 for what extends a run or learns from it, 2 for the same of that …
    parent: str  # the folder of the run that was extended, as it was given
    made_of: str  # digest of that run and of the photographs
    images: int  # new ones
    known_before: int  # photographs that were left out, since the run had them already
    classes_before: int  # K of the run that was extended
    appended: tuple[Appended, ...]
    moved: tuple[Moved, ...]
    first_regions: tuple[int, ...]  # of each extension so far: where its rows of regions.csv begin
    waiting: int  # regions that are unknown so far, of all days
    groups_refused: tuple[str, ...]  # why a group of unknown regions became no class
    out_of_scope: int  # new images that are unlike the product

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise InputError(f"format {self.format}; this version reads format {FORMAT}")
        if self.number < 1 or self.classes_before < 2:
            raise InputError(f"number {self.number}, classes_before {self.classes_before}")
        starts = list(self.first_regions)
        if len(starts) != self.number or starts != sorted(starts) or starts[0] < 0:
            raise InputError(
                f"first_regions {starts[:5]} are not those of {self.number} extensions"
            )
        ids = [one.id for one in self.appended]
        if ids != list(range(self.classes_before, self.classes_before + len(ids))):
            raise InputError(f"appended classes {ids[:5]} do not follow {self.classes_before}")

    @property
    def sentences(self) -> tuple[str, ...]:
        """What happened, in plain English: one sentence each."""
        again = f", {self.known_before} known before and left out" if self.known_before else ""
        run = Path(self.parent).name
        found = [f"Extension of {run}: {many(self.images, 'new image')}{again}."]
        found += [
            f"New class {one.id}, {one.name}: {many(one.regions, 'unknown region')} of "
            f"{many(one.images, 'image')} that hold together (stability {one.stability:.2f})."
            for one in self.appended
        ]
        if not self.appended:
            found.append("No new class.")
        found += self.groups_refused
        if self.out_of_scope:
            found.append(
                f"{many(self.out_of_scope, 'new image')} unlike the product, so out of scope."
            )
        found.append(_moves(self.moved))
        if self.waiting:
            found.append(
                f"{many(self.waiting, 'region')} unlike every class so far; the next extension "
                "looks at them again."
            )
        return tuple(found)

    def as_json(self) -> dict[str, Any]:
        """The content of the file."""
        return asdict(self)


def read(run: Path, classes: ClassList) -> Extension | None:
    """The record of a run that is an extension; None if it extends none.

    Args:
        run: its folder.
        classes: its list of classes.

    Raises:
        InputError: the record cannot be read, or does not fit the list of classes.
    """
    path = run / FILE
    if not path.exists():
        return None
    data = foreign.read_json(path, _MAX_BYTES)
    found = foreign.build(Extension, data, str(path), complete=True)
    own = [one.id for one in classes.classes if one.since == found.number]
    if own != [one.id for one in found.appended] or classes.classes[-1].since > found.number:
        raise InputError(
            f"{path}: appended other classes than classes.json says; restore the files that "
            "the extension wrote"
        )
    return found


def _moves(moved: tuple[Moved, ...]) -> str:
    if not moved:
        return "No region of an earlier day changed its class."
    kinds = sorted({(one.before, one.now) for one in moved})
    parts = [
        f"{sum((m.before, m.now) == kind for m in moved)} from {kind[0]} to {kind[1]}"
        for kind in kinds
    ]
    return (
        "Regions of earlier days that changed their class, since a new class suits them better: "
        f"{', '.join(parts)}."
    )


def many(count: int, noun: str) -> str:
    """So many of them, in words."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
