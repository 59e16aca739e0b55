"""From what a person has decided to the classes of a new run: pure functions of arrays.

Classes of the run keep their ids, merged ones too, which are left without regions. Classes that the
person has made are appended. Regions that are no defects belong to the defect-free class.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anomalyncd.decisions.actions import REASONS, Action, Apart, Confirm, Deny, Reject
from anomalyncd.decisions.naming import usable
from anomalyncd.decisions.propagation import Kinds, normal_class
from anomalyncd.decisions.state import State
from anomalyncd.storage.class_list import ClassList

GOOD = "good"  # what `predict` calls a defect-free class


@dataclass(frozen=True)
class Taught:
    """What the new run knows; n regions, K classes."""

    classes: ClassList
    normal: int | None  # the defect-free class
    ids: dict[str, int]  # of each class of the review: its id in the new run
    shares: NDArray[np.float64]  # (n, K), rows sum to 1; all 0 if nothing tells
    region_class: NDArray[np.int64]  # (n,) ids, or of a verdict; as before if nothing tells
    confidence: NDArray[np.float64]  # (n,) 1 for what was decided, 0 if nothing tells


def teach(
    state: State,
    kinds: Kinds,
    areas: NDArray[np.int64],
    before: NDArray[np.int64],
    classes: ClassList,
    number: int,
) -> Taught:
    """What follows from the decisions on a run.

    Args:
        state: the classes after them.
        kinds: what kind each region is.
        areas: (n,) anomalous pixels of each.
        before: (n,) classes in the run: ids, or of a verdict.
        classes: of the run.
        number: of this step among the run's extensions, see `ClassList`.
    """
    normal = normal_class(state, areas)
    ids, named = _ids(state, kinds.class_ids, len(classes.classes), normal)
    count = max(len(classes.classes), 1 + max(ids.values(), default=0))
    place = ids[normal] if normal in ids else named.get(GOOD)
    if place is None and GOOD in classes.names:
        place = classes.names.index(GOOD)
    if place is None and any(one in REASONS for one in kinds.class_ids):
        place, count = count, count + 1
    if place is not None:
        ids |= dict.fromkeys(REASONS, place)
    found = classes.appended(count - len(classes.classes), number)
    used = {ids[one] for one in kinds.class_ids}
    found = found.renamed(_names(state, ids, found.names, used, place))
    shares = np.zeros((len(areas), len(found.classes)))
    for column, one in enumerate(kinds.class_ids):
        shares[:, ids[one]] += kinds.shares[:, column]
    shares[~state.decided & (before < 0)] = 0
    told = shares.any(axis=1)
    best = shares.argmax(axis=1)
    return Taught(
        classes=found,
        normal=place,
        ids=ids,
        shares=shares,
        region_class=np.where(told, best, before),
        confidence=shares[np.arange(len(best)), best],
    )


def _ids(
    state: State, kinds: tuple[str, ...], count: int, normal: str | None
) -> tuple[dict[str, int], dict[str, int]]:
    """The id of each class of the review, and of each name that has regions.

    One name is one kind; the defect-free class has the name `good`, if nobody has given it one.
    """
    own = [one for one in map(str, range(count)) if one in state.class_ids]
    made = [one for one in kinds if one not in own and not state.is_fixed(one)]
    ids: dict[str, int] = {}
    named: dict[str, int] = {}
    for one in (*own, *made):
        is_unnamed = state.is_unnamed(one)
        name = GOOD if one == normal and is_unnamed else usable(state.name_of(one))
        is_kind = one in kinds and (name == GOOD or not is_unnamed)
        known = named.get(name) if is_kind else None
        ids[one] = known if known is not None else int(one) if one in own else count
        count = max(count, ids[one] + 1)
        if one in kinds:
            named[name] = ids[one]
    return ids, named


def _names(
    state: State,
    ids: dict[str, int],
    before: tuple[str, ...],
    used: set[int],
    normal: int | None,
) -> list[str]:
    """(K,) the names given; a class without regions makes way for another of its name."""
    names = list(before)
    for one, number in ids.items():
        if number in used and not state.is_fixed(one) and not state.is_unnamed(one):
            names[number] = usable(state.name_of(one))
    if normal is not None and (normal >= len(before) or names[normal] == f"class {normal}"):
        names[normal] = GOOD
    taken = {names[number] for number in used}
    return [
        f"{name} (no regions)" if number not in used and name in taken else name
        for number, name in enumerate(names)
    ]


def still_holding(
    state: State, ids: dict[str, int], photographs: tuple[str, ...]
) -> Iterator[Action]:
    """What was decided, as decisions on the new run, so that nobody is asked twice.

    Args:
        state: the classes after the decisions.
        ids: of each class of the review: its id in the new run.
        photographs: (n,) id of the photograph of each region.
    """

    def named(rows: NDArray[np.int64]) -> tuple[tuple[int, ...], tuple[str, ...]]:
        return tuple(rows.tolist()), tuple(photographs[row] for row in rows.tolist())

    for one in state.sizes():
        rows = state.members(one)
        rows = rows[state.decided[rows]]
        if len(rows) and one in REASONS:
            yield Reject(*named(rows), one)
        elif len(rows) and one in ids:
            yield Confirm(*named(rows), str(ids[one]))
    for one in sorted({class_id for _, class_id in state.denied}):
        rows = np.array(sorted(row for row, denied in state.denied if denied == one), np.int64)
        rows = rows[~state.decided[rows]]
        if len(rows) and one in ids and one not in REASONS:
            yield Deny(*named(rows), str(ids[one]))
    for pair in sorted(map(sorted, state.apart)):
        if len(pair) == 2 and all(one in ids for one in pair):
            yield Apart(tuple(str(ids[one]) for one in pair))
