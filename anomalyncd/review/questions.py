"""What to ask a person next, and how good the classes are as far as the answers tell.

Two kinds of questions. "Are these the same kind?" comes first, for two classes that overlap: one
answer decides about many regions. Then "Is this one of these?", for the region that the network is
least sure of. Such regions are harder than others, so every third region is drawn at random
instead: only those answers say how many of the undecided regions are right.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv

from anomalyncd.review.decisions import UNKNOWN_ID
from anomalyncd.review.neighbours import centres
from anomalyncd.review.state import State

SURE = 0.9  # confidence from which on a region is not asked about, unless it is drawn
_DRAWN_EVERY = 3  # questions
_COVERED = 0.9  # probability that the true share lies in the interval


@dataclass(frozen=True)
class OfRegion:
    """Is this one of these?"""

    region: int
    class_id: str
    drawn: bool
    examples: tuple[int, ...]  # regions of the class, decided or sure ones
    others: tuple[str, ...]  # other classes, the most similar first


@dataclass(frozen=True)
class OfPair:
    """Are these the same kind?"""

    first: str
    second: str


@dataclass(frozen=True)
class Quality:
    """How good the classes are."""

    regions: int
    decided: int
    unsure: int  # undecided regions below SURE, or of no class: questions that are left
    checked: int  # regions drawn at random that were answered
    right: int  # of these
    low: float | None  # share of all regions in the right class, at least …
    high: float | None  # … and at most, with probability 0.9; None if nothing was checked


def ask(
    tokens: NDArray[np.float32],
    confidences: NDArray[np.float64],
    state: State,
    asked: int,
    skipped: frozenset[int] = frozenset(),
) -> OfRegion | OfPair | None:
    """The next question; None if nothing is left.

    Args:
        tokens: (n, width), of length 1.
        confidences: (n,) of the network.
        state: the classes now.
        asked: how many decisions there are, so that another question follows each answer.
        skipped: regions that are not asked about now.
    """
    kinds, means, spreads = centres(tokens, state)
    pair = _overlapping(kinds, means, spreads, state)
    if pair is not None:
        return pair
    candidates = _undecided(state)
    if skipped:
        candidates = candidates[~np.isin(candidates, list(skipped))]
    if not len(candidates):
        return None
    unsure = candidates[_is_unsure(candidates, confidences, state)]
    drawn = asked % _DRAWN_EVERY == _DRAWN_EVERY - 1 or not len(unsure)
    if drawn:
        in_kinds = candidates[~_of_unknown(candidates, state)]
        drawn = len(in_kinds) > 0
    if drawn:
        region = int(in_kinds[np.random.default_rng(asked).integers(len(in_kinds))])
    else:
        order = np.where(_of_unknown(unsure, state), 0.0, confidences[unsure])
        region = int(unsure[order.argmin()])
    return _of_region(region, drawn, tokens, confidences, state, kinds, means)


def quality(confidences: NDArray[np.float64], state: State) -> Quality:
    """How much is decided, and what the regions drawn at random say about the rest."""
    undecided = _undecided(state)
    total, decided = len(state.assigned), len(state.assigned) - len(undecided)
    checked = state.drawn_right + state.drawn_wrong
    low = high = None
    if checked or not len(undecided):
        bounds = _interval(state.drawn_right, checked) if len(undecided) else (1.0, 1.0)
        low, high = ((decided + share * len(undecided)) / max(total, 1) for share in bounds)
    return Quality(
        regions=total,
        decided=decided,
        unsure=int(_is_unsure(undecided, confidences, state).sum()),
        checked=checked,
        right=state.drawn_right,
        low=low,
        high=high,
    )


def _interval(right: int, checked: int) -> tuple[float, float]:
    """Clopper and Pearson's interval of a share."""
    tail = (1 - _COVERED) / 2
    wrong = checked - right
    low = float(betaincinv(right, wrong + 1, tail)) if right else 0.0
    high = float(betaincinv(right + 1, wrong, 1 - tail)) if wrong else 1.0
    return low, high


def _undecided(state: State) -> NDArray[np.int64]:
    return np.flatnonzero(~state.decided)


def _of_unknown(rows: NDArray[np.int64], state: State) -> NDArray[np.bool_]:
    if UNKNOWN_ID not in state.class_ids:
        return np.zeros(len(rows), np.bool_)
    return state.assigned[rows] == state.class_ids.index(UNKNOWN_ID)


def _is_unsure(
    rows: NDArray[np.int64], confidences: NDArray[np.float64], state: State
) -> NDArray[np.bool_]:
    return (confidences[rows] < SURE) | _of_unknown(rows, state)


def _overlapping(
    kinds: list[str], means: NDArray[np.float32], spreads: NDArray[np.float32], state: State
) -> OfPair | None:
    """The two classes that lie closest, if their centres are nearer than their regions are wide."""
    if len(kinds) < 2:
        return None
    gaps = (1 - means @ means.T) - np.minimum(spreads[:, None], spreads[None])
    gaps[np.tril_indices(len(kinds))] = np.inf
    for a, one in enumerate(kinds):
        for b in range(a + 1, len(kinds)):
            if frozenset((one, kinds[b])) in state.apart:
                gaps[a, b] = np.inf
    first, second = divmod(int(gaps.argmin()), len(kinds))
    return OfPair(kinds[first], kinds[second]) if gaps[first, second] < 0 else None


def _of_region(
    region: int,
    drawn: bool,
    tokens: NDArray[np.float32],
    confidences: NDArray[np.float64],
    state: State,
    kinds: list[str],
    means: NDArray[np.float32],
) -> OfRegion | None:
    near = [kinds[i] for i in np.argsort(-(means @ tokens[region]), kind="stable")]
    allowed = [kind for kind in near if (region, kind) not in state.denied]
    own = state.class_of(region)
    class_id = own if own in kinds else next(iter(allowed or near), own)
    rows = state.members(class_id)
    rows = rows[rows != region]
    # Decided ones first, then those that the network is surest of.
    order = np.lexsort((-confidences[rows], ~state.decided[rows]))
    return OfRegion(
        region=region,
        class_id=class_id,
        drawn=drawn,
        examples=tuple(rows[order][:6].tolist()),
        others=tuple(kind for kind in near if kind != class_id),
    )
