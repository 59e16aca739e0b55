"""Regions of any runs and products, by how they look: what is kept of each, and what is found."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from anomalyncd.errors import InputError
from anomalyncd.storage import foreign

_NAMESPACE = uuid.UUID("5a2c8f0e-7d0b-4d7c-9a53-1f6a3b9e4c21")


@dataclass(frozen=True)
class Entry:
    """What is kept of a region, besides its features."""

    run: str  # the run's folder
    version: str  # of the run's regions; another one replaces those of the same run
    number: int  # its row in regions.csv
    product: str
    image: str
    box: tuple[int, int, int, int]  # left, top, right, bottom in image pixels
    class_name: str
    confidence: float

    @property
    def id(self) -> str:
        """A UUID, the same whenever the region is added, also after its run was moved."""
        return str(uuid.uuid5(_NAMESPACE, f"{self.version}\n{self.number}"))

    def payload(self) -> dict[str, Any]:
        texts = {key: _text(value) for key, value in asdict(self).items()}
        return texts | {"box": list(self.box)}


@dataclass(frozen=True)
class Similar:
    """A region that was found."""

    entry: Entry
    score: float  # cosine, -1 to 1


@dataclass(frozen=True)
class Wanted:
    """Which regions may be found; None: all."""

    class_name: str | None = None
    product: str | None = None

    def values(self) -> dict[str, str]:
        """By the keys of the payload."""
        return {key: value for key, value in asdict(self).items() if value is not None}


class Collection(Protocol):
    """Entries with features of one length, in the embedded engine or on a server."""

    def add(self, entries: Sequence[Entry], features: NDArray[np.float32]) -> None:
        """Add regions; the same ones may be added again.

        Args:
            entries: n of them.
            features: (n, width).
        """
        ...

    def count(self, values: dict[str, str]) -> int:
        """Entries whose payload has these values."""
        ...

    def remove_others(self, run: str, version: str) -> None:
        """Remove the entries of a run that are of another version."""
        ...

    def nearest(self, feature: NDArray[np.float32], top: int, wanted: Wanted) -> list[Similar]:
        """The `top` most similar regions, the most similar first."""
        ...

    def close(self) -> None: ...


def entry_of(payload: Any, where: str) -> Entry:
    """The entry of a stored payload; a server's content is checked like any other input.

    Raises:
        InputError: it is not an entry; `where` names the collection.
    """
    foreign.require_plain(payload, where)
    found = foreign.build(Entry, payload, where, complete=True)
    left, top, right, bottom = found.box
    if not (left < right and top < bottom):  # it may begin outside the photograph
        raise InputError(f"{where}: box {found.box} is empty")
    return found


def _text(value: Any) -> Any:
    """Text with `?` for what is not valid Unicode, as in some paths: no engine takes it."""
    return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else value
