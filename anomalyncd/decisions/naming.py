"""What a person calls a run's classes: the names and merges of a review, without any learning.

Read by all that shows classes of new photographs. Decisions about single regions need learning, and
are only counted here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anomalyncd.decisions.actions import Apart, Confirm, Merge, Name, without_regions
from anomalyncd.decisions.journal import NAME, Journal
from anomalyncd.decisions.state import active, initial, present
from anomalyncd.types import VERDICTS

_LONGEST = 200  # characters of a name


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
        return (
            f"{self.unlearned} decisions of the review are about single regions, which names "
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
    if not (run / NAME).exists():
        return Naming(tuple(class_names), own, 0)
    journal = Journal(run)
    journal.refresh()
    counting = active(journal.decisions)
    # Regions are left out: only what is said of whole classes matters.
    of_classes = [replace(one, action=without_regions(one.action)) for one in counting]
    state = present(initial(np.array(own, np.int64), class_names), of_classes)
    became = [state.current(str(number)) for number in own]
    return Naming(
        names=tuple(usable(state.name_of(one)) for one in became),
        into=tuple(became.index(one) for one in became),
        unlearned=sum(
            not one.is_carried and not isinstance(one.action, Name | Merge | Apart | Confirm)
            for one in counting
        ),
    )


def usable(name: str) -> str:
    """A name that can be printed and kept, and is no verdict."""
    shown = "".join(sign if sign.isprintable() else "�" for sign in name[:_LONGEST]).strip()
    return f"{shown} (kind)" if not shown or shown in VERDICTS.values() else shown
