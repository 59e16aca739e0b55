"""classes.json: the append-only list that ties class ids to names, across extensions of a run.

The id of a class is its place in the list. An extension copies the list of the run that it extends
and appends to it, so an id never stands for another class. A name may be changed by a person; it is
kept from then on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from anomalyncd.config import MAX_CLASSES
from anomalyncd.errors import InputError
from anomalyncd.storage import foreign
from anomalyncd.types import VERDICTS

FILE = "classes.json"
FORMAT = 1
MAX_NAME = 200  # characters


@dataclass(frozen=True)
class NamedClass:
    """One class."""

    id: int
    name: str
    since: int  # the extension that appended it; 0: the first run


@dataclass(frozen=True)
class ClassList:
    """All classes of a run, by id."""

    format: int
    classes: tuple[NamedClass, ...]

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise InputError(f"format {self.format}; this version reads format {FORMAT}")
        if len(self.classes) > MAX_CLASSES:
            raise InputError(f"{len(self.classes)} classes; expected at most {MAX_CLASSES}")
        before = 0
        for place, one in enumerate(self.classes):
            if one.id != place:
                raise InputError(
                    f"class {one.id} at place {place}; expected ids 0, 1, 2 … in order"
                )
            if one.since < before:
                raise InputError(
                    f"class {one.id} is of extension {one.since}, before class {one.id - 1}; "
                    "classes are only appended"
                )
            before = one.since
        require_names(self.names)

    @property
    def names(self) -> tuple[str, ...]:
        """(K,) by id."""
        return tuple(one.name for one in self.classes)

    def appended(self, count: int, since: int) -> ClassList:
        """With new classes at the end, named by their ids."""
        found = list(self.classes)
        for new in range(len(found), len(found) + count):
            found.append(NamedClass(new, _free_name(f"class {new}", found), since))
        return ClassList(FORMAT, tuple(found))

    def renamed(self, names: Sequence[str]) -> ClassList:
        """With other names, by id; one that an earlier class has gets a number."""
        found: list[NamedClass] = []
        for one, name in zip(self.classes, names, strict=True):
            found.append(replace(one, name=_free_name(name, found)))
        return ClassList(FORMAT, tuple(found))

    def as_json(self) -> dict[str, Any]:
        """The content of the file."""
        return asdict(self)


def require_names(names: Sequence[str]) -> None:
    """Check the names of classes, by id.

    Raises:
        InputError: one of them is empty, too long, not printable, repeated, or a verdict.
    """
    for number, name in enumerate(names):
        if not name.strip() or len(name) > MAX_NAME or not name.isprintable():
            raise InputError(f"class {number} has no usable name: {name[:60]!r}")
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"two classes have the name {repeated[:60]!r}; rename one")
    if taken := next((name for name in names if name in VERDICTS.values()), None):
        raise InputError(f"a class has the name {taken!r}, which is a verdict; rename it")


def read(run: Path, names: Sequence[str]) -> ClassList:
    """The classes of a run.

    Args:
        run: its folder.
        names: those of its model, by id; a run that extends none has no list of its own.

    Raises:
        InputError: the list cannot be read, is not in order, or does not fit the model.
    """
    path = run / FILE
    if not path.exists():
        try:
            return ClassList(FORMAT, tuple(NamedClass(k, name, 0) for k, name in enumerate(names)))
        except InputError as error:
            raise InputError(f"{run}: {error}") from error
    found = foreign.build(ClassList, foreign.read_json(path), str(path), complete=True)
    if len(found.classes) != len(names):
        raise InputError(
            f"{path}: {len(found.classes)} classes, but the model of this run has {len(names)}; "
            "restore the file that the run wrote"
        )
    return found


def _free_name(name: str, taken: Sequence[NamedClass]) -> str:
    names = {one.name for one in taken}
    free, number = name, 2
    while free in names:
        free, number = f"{name} ({number})", number + 1
    return free
