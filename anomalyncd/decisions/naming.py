"""What a person calls a run's classes: the names and merges of a review, without any learning.

Read by all that shows classes of new photographs. Decisions about single regions need learning, and
are only counted here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anomalyncd.decisions.actions import (
    REASONS,
    Apart,
    Confirm,
    Decision,
    Merge,
    Move,
    Name,
    without_regions,
)
from anomalyncd.decisions.journal import NAME, Journal
from anomalyncd.decisions.state import active, check, initial, present
from anomalyncd.errors import InputError
from anomalyncd.storage.cache import digest
from anomalyncd.storage.class_list import MAX_NAME
from anomalyncd.types import VERDICTS

# Characters of a name that a person gives; a list of classes may put a mark after it.
LONGEST = MAX_NAME - 20
_FIXED = {*VERDICTS.values(), *REASONS.values()}


@dataclass(frozen=True)
class Naming:
    """K classes of a run."""

    names: tuple[str, ...]  # (K,); a class that was merged has the name of what it became
    into: tuple[int, ...]  # (K,) the class that each has become; itself, if it was not merged
    unlearned: int  # decisions about single regions, which a name cannot express

    @property
    def merging(self) -> NDArray[np.float64]:
        """(K, K): distributions over the run's classes times this are those after merging."""
        return np.eye(len(self.into))[list(self.into)]

    def advice(self, run: Path) -> str:
        """What to do about decisions that need learning; empty if there are none."""
        if not self.unlearned:
            return ""
        many = "decision of the review is" if self.unlearned == 1 else "decisions of the review are"
        return (
            f"{self.unlearned} {many} about single regions, which names "
            f"cannot express: anomalyncd learn {run} makes a classifier of them"
        )


def read(run: Path, class_names: Sequence[str]) -> Naming:
    """The names and merges that were decided in a review of a run.

    Args:
        run: its folder.
        class_names: (K,) of its model.

    Raises:
        InputError: the decisions cannot be read.
    """
    own = tuple(range(len(class_names)))
    if not (counting := _counting(run)):
        return Naming(tuple(class_names), own, 0)
    # Regions are left out: only what is said of whole classes matters.
    of_classes = [replace(one, action=without_regions(one.action)) for one in counting]
    state = present(initial(np.array(own, np.int64), class_names), of_classes)
    became = [state.current(str(number)) for number in own]
    names = [usable(state.name_of(one)) for one in became]
    first: dict[str, int] = {}  # two classes of one name are one kind
    for one, name in zip(became, names, strict=True):
        first.setdefault(name, int(one) if one in map(str, own) else became.index(one))
    return Naming(
        names=tuple(names),
        into=tuple(first[name] for name in names),
        unlearned=sum(
            not one.is_carried and not isinstance(one.action, Name | Merge | Apart | Confirm)
            for one in counting
        ),
    )


def fingerprint(run: Path) -> str | None:
    """What names and merges there are, without reading the run; None if there are none.

    Raises:
        InputError: the decisions cannot be read.
    """
    said = [
        asdict(without_regions(one.action))
        for one in _counting(run)
        if isinstance(one.action, Name | Merge)
        or (isinstance(one.action, Move) and one.action.name)
    ]
    return digest(said) if said else None


def of_regions(
    run: Path, ids: Sequence[str], classes: NDArray[np.int64], class_names: Sequence[str]
) -> tuple[str, ...]:
    """What the classes of a run's regions are called after its review: (n,).

    Args:
        run: its folder.
        ids: (n,) of the photograph of each region.
        classes: (n,) ids in the run.
        class_names: (n,) in the run.

    Raises:
        InputError: the decisions cannot be read, or are about another run's regions.
    """
    if not (counting := _counting(run)):
        return tuple(class_names)
    check(counting, ids, str(run / NAME))
    state = present(initial(classes, class_names), counting)
    names = [usable(state.name_of(one), verdict=state.is_fixed(one)) for one in state.class_ids]
    return tuple(names[k] for k in state.assigned.tolist())


def _counting(run: Path) -> list[Decision]:
    journal = Journal(run)
    journal.refresh()
    return active(journal.decisions)


def require_short(name: str) -> None:
    """Refuse what is too long for a name.

    Raises:
        InputError: it is.
    """
    if len(name) > LONGEST:
        raise InputError(
            f"a name of {len(name)} characters; expected 1 to {LONGEST}: {name[:60]!r} …"
        )


def usable(name: str, *, verdict: bool = False) -> str:
    """A name that can be printed and kept, and is no verdict unless it is of one."""
    shown = "".join(sign if sign.isprintable() else "�" for sign in name[:LONGEST]).strip()
    return f"{shown} (kind)" if not shown or (shown in _FIXED and not verdict) else shown
