"""From a day's new regions to the classes of a run that knows them: pure decisions on arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from anomalyncd.extension import prototypes
from anomalyncd.extension.groups import Group, certain

MOST_TAKEN = 0.2  # of the regions of a class that a new one may claim, before it is refused
LEAST_LEARNED = 0.75  # of its own regions that a new class must claim


@dataclass(frozen=True)
class Regions:
    """All regions of a run and of the new day, n of them."""

    tokens: NDArray[np.float32]  # (n, width)
    classes: NDArray[np.int64]  # (n,) ids, or of a verdict
    days: NDArray[np.int64]  # (n,) the extension that each came with; 0: the first run


@dataclass(frozen=True)
class Accepted:
    """The groups that became classes, in the order of their ids."""

    groups: tuple[Group, ...]  # rows are those of `Regions`
    prototypes: Tensor | None  # (heads, len(groups), width); None without groups
    refused: tuple[str, ...]  # a sentence for each group that became no class


def accept(
    groups: Sequence[Group],
    regions: Regions,
    old: Tensor,
    head: int,
    names: Sequence[str],
    temperature: float,
) -> Accepted:
    """Make a class of each group that the network can tell from the old ones.

    Args:
        groups: of unknown regions that hold together.
        regions: all.
        old: (heads, K, width) prototypes.
        head: the one used for prediction.
        names: (K,) of the learned classes.
        temperature: of the softmax.
    """
    kept = list(groups)
    refused: list[str] = []
    while kept:
        first = min(int(regions.days[group.rows].min()) for group in kept)
        rows = np.flatnonzero((regions.classes >= 0) & certain(regions.days, first))
        new = prototypes.learn(
            old,
            regions.tokens[rows],
            regions.classes[rows],
            [regions.tokens[group.rows] for group in kept],
            temperature,
        )
        claimed = prototypes.nearest(old[head], new[head], regions.tokens)
        faults = [
            _fault(claimed, k, kept[k], regions, rows, len(old[0]), names) for k in range(len(kept))
        ]
        if not any(faults):
            return Accepted(tuple(kept), new, tuple(refused))
        worst = next(k for k in reversed(range(len(kept))) if faults[k])  # the smallest group
        refused.append(
            f"{len(kept[worst].rows)} unknown regions hold together, but {faults[worst]}."
        )
        del kept[worst]
    return Accepted((), None, tuple(refused))


def _fault(
    claimed: NDArray[np.int64],
    number: int,
    group: Group,
    regions: Regions,
    known: NDArray[np.int64],
    k: int,
    names: Sequence[str],
) -> str:
    """Why a group cannot be a class; "" if it can."""
    own = claimed[group.rows] == k + number
    if own.mean() < LEAST_LEARNED:
        return "the network cannot tell them from the known classes"
    for old in range(k):
        members = known[regions.classes[known] == old]
        taken = int((claimed[members] == k + number).sum())
        if taken > 1 and taken > MOST_TAKEN * len(members):
            return f"they look like {names[old]}: {taken} of its {len(members)} regions would join"
    return ""


def moves(
    accepted: Accepted, regions: Regions, claimed: NDArray[np.int64], k: int
) -> NDArray[np.int64]:
    """Classes of all regions after new ones were appended.

    The regions of a group have its class. Another region may move only from a learned class to a
    new one, only if it came with the first region of that class or later (before, the kind had not
    been seen), and only if the network says so.

    Args:
        accepted: the new classes.
        regions: all.
        claimed: (n,) ids that the network says, new classes among them.
        k: number of classes before.

    Returns:
        (n,) ids, or verdicts.
    """
    found = regions.classes.copy()
    for number, group in enumerate(accepted.groups):
        since = int(regions.days[group.rows].min())
        late = ~certain(regions.days, since) & (regions.classes >= 0)
        found[late & (claimed == k + number)] = k + number
    for number, group in enumerate(accepted.groups):
        found[group.rows] = k + number
    return found
