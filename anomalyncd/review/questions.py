"""What to ask a person next, and how good the classes are as far as the answers tell.

"Is this one of these?" is asked about the region whose answer tells most about all others. Such
regions are not like the rest, so every fifth region is drawn at random instead: only those answers
say how many of the undecided regions are right. Once no region is unsure, "Are these the same
kind?" is asked about classes that overlap. (Asked first, it costs more clicks than it saves, as
`scripts/review_curve.py` showed: what a region is called tells as much.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv

from anomalyncd.decisions.propagation import Graph, Kinds, most_telling
from anomalyncd.decisions.state import State
from anomalyncd.review.neighbours import centres

SURE = 0.9  # share of a kind from which on a region counts as sure
_DRAWN_EVERY = 5  # questions
_EXAMPLES = 6
_FEWEST = 3  # regions of a class that one can compare with another
_COVERED = 0.9  # probability that the true share lies in the interval


@dataclass(frozen=True)
class OfRegion:
    """Is this one of these?"""

    region: int
    class_id: str
    drawn: bool
    examples: tuple[int, ...]  # regions of the class, decided or sure ones
    others: tuple[str, ...]  # other classes, the most likely first


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
    unsure: int | None  # undecided regions whose kind is below SURE; None: not known yet
    checked: int  # regions drawn at random that were answered
    right: int  # of these
    low: float | None  # share of all regions in the right class, at least …
    high: float | None  # … and at most, with probability 0.9; None if nothing was checked


def ask(
    tokens: NDArray[np.float32],
    found: Graph,
    kinds: Kinds,
    areas: NDArray[np.int64],
    state: State,
    asked: int,
    skipped: frozenset[int] = frozenset(),
) -> OfRegion | OfPair | None:
    """The next question; None if nothing is left.

    Args:
        tokens: (n, width), of length 1.
        found: which regions look alike.
        kinds: what kind each is.
        areas: (n,) anomalous pixels; a region without any is a whole photograph, and not asked
            about.
        state: the classes now.
        asked: how many decisions there are, so that another question follows each answer.
        skipped: regions that are not asked about now.
    """
    open_ = undecided(state, areas)
    if not _unsure(kinds, open_).any() and (pair := _overlapping(tokens, areas, state)):
        return pair
    candidates = open_.copy()
    candidates[list(skipped)] = False
    rows = np.flatnonzero(candidates)
    if not len(rows):
        return None
    drawn = asked % _DRAWN_EVERY == _DRAWN_EVERY - 1
    if drawn:
        region = int(rows[np.random.default_rng(asked).integers(len(rows))])
    else:
        scores = np.full(len(open_), -np.inf)
        scores[found.joined] = most_telling(found, kinds.sure, open_)
        if not np.isfinite(scores[rows]).any():  # only regions are left that follow others
            scores[rows] = -kinds.sure[rows]
        region = int(rows[scores[rows].argmax()])
    return _of_region(region, drawn, kinds, state)


def quality(kinds: Kinds | None, areas: NDArray[np.int64], state: State) -> Quality:
    """How much is decided, and what the regions drawn at random say about the rest."""
    open_ = undecided(state, areas)
    total, left = int((areas > 0).sum() + (state.decided & (areas == 0)).sum()), int(open_.sum())
    decided = int(state.decided.sum())
    checked = state.drawn_right + state.drawn_wrong
    low = high = None
    if checked or not left:
        bounds = _interval(state.drawn_right, checked) if left else (1.0, 1.0)
        low, high = ((decided + share * left) / max(total, 1) for share in bounds)
    return Quality(
        regions=total,
        decided=decided,
        unsure=None if kinds is None else int(_unsure(kinds, open_).sum()),
        checked=checked,
        right=state.drawn_right,
        low=low,
        high=high,
    )


def undecided(state: State, areas: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(n,) regions with a main element that nobody has decided about."""
    return ~state.decided & (areas > 0)


def _unsure(kinds: Kinds, open_: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return open_ & (kinds.sure < SURE)


def _interval(right: int, checked: int) -> tuple[float, float]:
    """Clopper and Pearson's interval of a share."""
    tail = (1 - _COVERED) / 2
    wrong = checked - right
    low = float(betaincinv(right, wrong + 1, tail)) if right else 0.0
    high = float(betaincinv(right + 1, wrong, 1 - tail)) if wrong else 1.0
    return low, high


def _overlapping(
    tokens: NDArray[np.float32], areas: NDArray[np.int64], state: State
) -> OfPair | None:
    """The two classes that lie closest, if their centres are nearer than their regions are wide."""
    kinds, means, spreads = centres(tokens, state)
    gaps = (1 - means @ means.T) - np.minimum(spreads[:, None], spreads[None])
    gaps[np.tril_indices(len(kinds))] = np.inf
    members = [state.members(kind) for kind in kinds]
    few = [(areas[of] > 0).sum() < _FEWEST or not state.decided[of].any() for of in members]
    gaps[few], gaps[:, few] = np.inf, np.inf
    for a, one in enumerate(kinds):
        for b in range(a + 1, len(kinds)):
            if frozenset((one, kinds[b])) in state.apart:
                gaps[a, b] = np.inf
    if not (gaps < 0).any():
        return None
    first, second = divmod(int(gaps.argmin()), len(kinds))
    return OfPair(kinds[first], kinds[second])


def _of_region(region: int, drawn: bool, kinds: Kinds, state: State) -> OfRegion:
    order = np.argsort(-kinds.shares[region], kind="stable")
    likely = [kinds.class_ids[place] for place in order] or [state.class_of(region)]
    class_id = likely[0]
    rows = state.members(class_id)
    rows = rows[rows != region]
    of_class = kinds.shares[rows][:, order[:1]].sum(axis=1)
    best = np.lexsort((-of_class, ~state.decided[rows]))  # decided ones first
    return OfRegion(
        region=region,
        class_id=class_id,
        drawn=drawn and not state.is_unnamed(class_id),  # nobody could say whether it is right
        examples=tuple(rows[best][:_EXAMPLES].tolist()),
        others=tuple(one for one in likely[1:] if not state.is_fixed(one)),
    )
