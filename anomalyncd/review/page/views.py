"""What the templates show: plain values, computed from a review's state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import numpy as np
from numpy.typing import NDArray

from anomalyncd.decisions.actions import (
    Apart,
    Confirm,
    Decision,
    Deny,
    Merge,
    Move,
    Name,
    Reject,
    Split,
    Undo,
    part_id,
)
from anomalyncd.decisions.state import State, active
from anomalyncd.inference.similarity import nearest
from anomalyncd.review.questions import SURE
from anomalyncd.review.session import Review
from anomalyncd.runtime.console import printable

STRIP = 24  # regions of a class on the first page
_COLOURS = 12
_SHORT = 60  # characters of a name in a sentence


@dataclass(frozen=True)
class Tile:
    """One region."""

    row: int
    label: str  # for those who hear it
    confidence: str
    decided: bool
    position: int  # in its list, from 1


@dataclass(frozen=True)
class Group:
    """One class."""

    id: str
    name: str
    colour: int
    size: int
    decided: int
    unsure: int
    fixed: bool  # no kind of defects
    tiles: tuple[Tile, ...]


@dataclass(frozen=True)
class Filters:
    """Which regions a list shows, and in which order."""

    class_id: str = ""
    decided: str = ""  # yes, no
    below: int = 100  # confidence in %
    image: str = ""  # part of the photograph's id
    like: int = -1  # a region; the most similar first

    @staticmethod
    def of(query: Mapping[str, str]) -> Filters:
        return Filters(
            class_id=query.get("class", ""),
            decided=query.get("decided", "") if query.get("decided") in ("yes", "no") else "",
            below=_number(query.get("below", ""), 100),
            image=query.get("image", "")[:1000],
            like=_number(query.get("like", ""), -1),
        )

    @property
    def query(self) -> str:
        named: dict[str, Any] = {
            "class": self.class_id,
            "decided": self.decided,
            "below": self.below if self.below < 100 else "",
            "image": self.image,
            "like": self.like if self.like >= 0 else "",
        }
        pairs = {key: value for key, value in named.items() if value != ""}
        return urlencode(pairs, errors="surrogateescape")


def listed(review: Review, filters: Filters) -> NDArray[np.int64]:
    """The rows that pass the filters: undecided ones first, and of these the least sure first."""
    known, state = review.regions, review.state
    keep = np.ones(len(known.ids), np.bool_)
    if filters.class_id:
        keep[:] = False
        keep[state.members(filters.class_id)] = True
    if filters.decided:
        keep &= state.decided == (filters.decided == "yes")
    if filters.below < 100:
        keep &= known.confidences * 100 <= filters.below
    rows = np.flatnonzero(keep)
    if filters.image:
        rows = rows[[filters.image in known.ids[row] for row in rows.tolist()]]
    if 0 <= filters.like < len(known.ids):
        cosines = known.tokens[rows] @ known.tokens[filters.like]
        return rows[np.argsort(-cosines, kind="stable")]
    return _least_sure_first(review, state, rows)


def groups(review: Review, *, strips: bool) -> list[Group]:
    """All classes with regions; those that are no kinds of defects come last."""
    state = review.state
    order = sorted(state.sizes(), key=state.is_fixed)  # stable
    return [group(review, state, class_id, STRIP if strips else 0) for class_id in order]


def group(
    review: Review, state: State, class_id: str, strip: int, *, typical: bool = False
) -> Group:
    """A class with so many of its regions: the least sure, or the most typical, which are the
    decided ones and the surest."""
    rows = state.members(class_id)
    unsure = ~state.decided[rows] & (review.regions.confidences[rows] < SURE)
    ordered = _least_sure_first(review, state, rows)
    first = (ordered[::-1] if typical else ordered)[:strip]
    return Group(
        id=class_id,
        name=printable(state.name_of(class_id)),
        colour=colour(state, class_id),
        size=len(rows),
        decided=int(state.decided[rows].sum()),
        unsure=int(unsure.sum()),
        fixed=state.is_fixed(class_id),
        tiles=tiles(review, state, first),
    )


def colour(state: State, class_id: str) -> int:
    """The number of its colour; −1 for what is no kind of defects."""
    return -1 if state.is_fixed(class_id) else state.class_ids.index(class_id) % _COLOURS


def tiles(
    review: Review, state: State, rows: NDArray[np.int64], begin: int = 0
) -> tuple[Tile, ...]:
    """The rows as tiles; the first one's place in its list is `begin`."""
    known = review.regions
    found = []
    for place, row in enumerate(rows.tolist(), begin + 1):
        decided = bool(state.decided[row])
        share = f"{100 * known.confidences[row]:.0f} %"
        says = "decided" if decided else f"confidence {share}"
        label = f"Region {row} of {short(known.ids[row])}, {says}"
        found.append(Tile(row, label, share, decided, place))
    return tuple(found)


def similar(review: Review, region: int, top: int) -> tuple[Tile, ...]:
    """The regions most like this one, without itself."""
    rows, _ = nearest(review.regions.tokens, review.regions.tokens[region], top + 1)
    return tiles(review, review.state, rows[rows != region][:top])


def history(review: Review) -> list[dict[str, Any]]:
    """All decisions as sentences, the last first."""
    counting = {decision.id for decision in active(review.decisions)}
    sentences: dict[str, str] = {}
    names = _Names(review.state)
    found = []
    for decision in review.decisions:
        sentences[decision.id] = text = sentence(decision, names, sentences)
        is_undo = isinstance(decision.action, Undo)
        found.append(
            {
                "id": decision.id,
                "time": printable(decision.time[:19].replace("T", " ")),
                "text": text,
                "counts": decision.id in counting,
                "is_undo": is_undo,
            }
        )
    return found[::-1]


class _Names:
    """Names for sentences; a class that has vanished keeps the last one it had."""

    def __init__(self, state: State) -> None:
        self._state = state

    def __getitem__(self, class_id: str) -> str:
        known = class_id in self._state.class_ids or self._state.is_fixed(class_id)
        return short(self._state.name_of(class_id) if known else class_id)


def sentence(decision: Decision, names: _Names, earlier: Mapping[str, str]) -> str:
    """A decision in plain words."""
    match decision.action:
        case Name(class_id, name):
            return f"Named {names[class_id] if not name else 'a class'} “{short(name)}”"
        case Merge(class_ids, into):
            others = " and ".join(names[one] for one in class_ids if one != into)
            return f"Merged {others} into {names[into]}"
        case Split(class_id=class_id, parts=parts):
            made = ", ".join(names[part_id(decision.id, part)] for part in sorted(set(parts)))
            return f"Split {names[class_id]}: {made} left it"
        case Move(regions=regions, class_id=class_id):
            return f"Moved {_regions(regions)} to {names[class_id]}"
        case Reject(regions=regions, reason=reason):
            return f"Marked {_regions(regions)} as {names[reason]}"
        case Confirm(regions=regions, class_id=class_id):
            return f"Confirmed {_regions(regions)} as {names[class_id]}"
        case Deny(regions=regions, class_id=class_id):
            return f"Said that {_regions(regions)} is not {names[class_id]}"
        case Apart(class_ids):
            return f"Said that {' and '.join(names[one] for one in class_ids)} differ"
        case Undo(decision=target):
            return f"Undid: {earlier.get(target, 'a decision')}"


def short(name: str) -> str:
    """A name for a sentence or a list."""
    shown = printable(name[: 2 * _SHORT])
    return shown if len(shown) <= _SHORT else f"{shown[: _SHORT - 1]}…"


def _regions(rows: tuple[int, ...]) -> str:
    return f"region {rows[0]}" if len(rows) == 1 else f"{len(rows)} regions"


def _least_sure_first(review: Review, state: State, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    return rows[np.lexsort((review.regions.confidences[rows], state.decided[rows]))]


def _number(text: str, otherwise: int) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else otherwise
