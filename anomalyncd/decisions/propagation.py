"""What kind each region is, as far as decisions tell.

Two answers are multiplied. The first spreads over regions that look alike: every kind starts with
the same amount, at the regions that were decided to be of it, and a little at those that the run
has put there; what arrives at a region is its share of each kind (Zhou et al., "Learning with local
and global consistency", 2004, with kinds of equal weight). The second is a linear classifier of the
decided regions. It only says which of their kinds a region is, so that other kinds stay. Measured
with `scripts/review_curve.py`: together they are better than each alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from anomalyncd.decisions.state import State
from anomalyncd.inference.similarity import directions
from anomalyncd.types import VERDICTS

MOST = 2000  # regions that are joined with each other; every other one follows its likes among them
_NEIGHBOURS = 8
_PER_NEIGHBOUR = 15  # regions for each neighbour, so that small kinds stay apart in small runs
_FOLLOWED = 3  # regions that one which is not joined follows
_FARTHEST = 1e-6  # joins all a little, so that no region is out of reach
_FAR = 0.9  # share of what a region has that it passes on
_CLIP = 4.0  # deviations: one odd region must not make an axis of its own
_UNDECIDED = 0.03  # weight of a region that the run has put into a class, beside a decided one
# A kind without a name, of which no region was decided, starts with less, the more was decided of
# others: it may be one of them. But it does not vanish.
_FADING, _LEFT = 0.05, 0.2
_NOT_KNOWN = 0.8  # how sure a region can be that is of such a kind
_LINEAR = 100.0  # inverse regularisation of the classifier, for looks of mean length 1
_DOUBT = 0.02  # added to its shares, so that it alone can rule out nothing
_NOISE = 0.1  # variance of a decided region, for `most_telling`
_VERDICTS = frozenset(map(str, VERDICTS))


@dataclass(frozen=True)
class Graph:
    """Which regions look alike; n regions, m of them joined."""

    looks: NDArray[np.float64]  # (n, width), each column standardised, of mean length 1
    joined: NDArray[np.int64]  # (m,) rows
    reach: NDArray[np.float64]  # (m, m) how much of what one starts with arrives at another
    follows: NDArray[np.int64]  # (n, …) of each region, places in `joined`; itself, if it is there
    following: NDArray[np.float64]  # (n, …) how much, rows sum to 1


@dataclass(frozen=True)
class Kinds:
    """What kind each region is; n regions, c kinds."""

    class_ids: tuple[str, ...]  # (c,), as in `State`
    shares: NDArray[np.float64]  # (n, c), rows sum to 1; all 0 if nothing tells
    known: NDArray[np.bool_]  # (c,) a person has named it, or decided about a region of it

    @property
    def sure(self) -> NDArray[np.float64]:
        """(n,) how sure it is what each region is; less of a kind that nobody knows yet."""
        return (self.shares * np.where(self.known, 1, _NOT_KNOWN)).max(axis=1, initial=0)


def graph(looks: NDArray[np.float32]) -> Graph:
    """Join regions that look alike.

    Args:
        looks: (n, width), see `results.known_regions`.
    """
    n = len(looks)
    joined = np.arange(n) if n <= MOST else np.arange(MOST) * n // MOST
    standard = _standard(np.asarray(looks, np.float64))
    x = directions(standard)
    alike = x[joined] @ x[joined].T
    np.fill_diagonal(alike, -np.inf)
    m = len(joined)
    count = min(_NEIGHBOURS, max(2, m // _PER_NEIGHBOUR), m - 1)
    weights = np.zeros((m, m))
    if count > 0:
        near = np.argsort(-alike, axis=1, kind="stable")[:, :count]
        distance = 1 - np.take_along_axis(alike, near, axis=1)
        close = np.exp(-distance / np.maximum(distance[:, -1:], 1e-9))
        np.put_along_axis(weights, near, close, axis=1)
    weights = np.maximum(np.maximum(weights, weights.T), _FARTHEST)
    degree = np.sqrt(np.maximum(weights.sum(axis=1), 1e-12))
    passed = weights / degree[:, None] / degree[None]
    reach = np.linalg.inv(np.eye(m) - _FAR * passed)
    return Graph(standard, joined, reach, *_followed(x, joined))


def kinds(found: Graph, state: State, areas: NDArray[np.int64]) -> Kinds:
    """What kind each region is.

    Args:
        found: which regions look alike.
        state: the classes now.
        areas: (n,) anomalous pixels; regions without any are no defects, and pass nothing on.
    """
    class_ids = tuple(one for one in state.sizes() if one not in _VERDICTS)
    places = {state.class_ids.index(one): place for place, one in enumerate(class_ids)}
    own = np.array([places.get(one, -1) for one in range(len(state.class_ids))], int)
    own = own[state.assigned]
    seeds = np.zeros((len(own), len(class_ids)))
    rows = np.flatnonzero((own >= 0) & (areas > 0))
    seeds[rows, own[rows]] = np.where(state.decided[rows], 1.0, _UNDECIDED)
    normal = normal_class(state, areas)
    if normal in class_ids:  # what the maps show there is no reason to call a region defect-free
        seeds[~state.decided, class_ids.index(normal)] = 0
    at_joined = np.zeros((len(found.joined), len(class_ids)))
    np.add.at(at_joined, found.follows[:, 0], seeds)
    at_joined /= np.maximum(at_joined.sum(axis=0), 1e-12)
    decided = rows[state.decided[rows]]
    looked_at = np.isin(np.arange(len(class_ids)), own[decided])
    named = np.array([not state.is_unnamed(one) for one in class_ids], np.bool_)
    fading = max(_LEFT, 1 - _FADING * len(decided))
    at_joined[:, ~(looked_at | named)] *= fading
    # r, f = region, one that it follows; c = kind
    shares = np.einsum("rf,rfc->rc", found.following, (found.reach @ at_joined)[found.follows])
    linear = _classified(found.looks, decided, own[decided], len(class_ids)) + _DOUBT
    of_both = shares[:, looked_at] * linear[:, looked_at]  # it knows nothing of other kinds
    together = shares[:, looked_at].sum(axis=1, keepdims=True)
    shares[:, looked_at] = of_both * together / np.maximum(of_both.sum(1, keepdims=True), 1e-300)
    for region, class_id in state.denied:
        if class_id in class_ids:
            shares[region, class_ids.index(class_id)] = 0
    fixed = (state.decided | (areas == 0) | ~shares.any(axis=1)) & (own >= 0)
    shares[fixed] = np.eye(len(class_ids))[own[fixed]]
    shares /= np.maximum(shares.sum(axis=1, keepdims=True), 1e-300)
    return Kinds(class_ids, shares, looked_at | named)


def normal_class(state: State, areas: NDArray[np.int64]) -> str | None:
    """The class of photographs in which nothing was found; None if there is none.

    It holds the most of them, they are most of its regions, and nobody has seen a defect in it.
    """
    count = len(state.class_ids)
    empty = np.bincount(state.assigned[(areas == 0) & ~state.decided], minlength=count)
    defects = np.bincount(state.assigned[(areas > 0) & state.decided], minlength=count)
    total = np.bincount(state.assigned, minlength=count)
    empty = np.where((2 * empty > total) & (defects == 0), empty, 0)
    return state.class_ids[int(empty.argmax())] if empty.any() else None


def most_telling(found: Graph, sure: NDArray[np.float64], open_: NDArray[np.bool_]) -> NDArray:
    """How much would be known of the open regions, if one of the joined were decided: (m,).

    What is not known of a region is the variance of a Gaussian process whose covariance is what
    arrives from one region at another; it counts as much as its kind is uncertain.

    Args:
        found: which regions look alike.
        sure: (n,) see `Kinds`.
        open_: (n,) regions that nobody has decided about.
    """
    scale = np.sqrt(np.diag(found.reach))
    covariance = found.reach / scale[:, None] / scale[None]
    known = np.flatnonzero(~open_[found.joined])
    if len(known):
        among = covariance[np.ix_(known, known)] + _NOISE * np.eye(len(known))
        covariance = covariance - covariance[:, known] @ np.linalg.solve(among, covariance[known])
    weight = np.zeros(len(found.joined))
    np.add.at(weight, found.follows[:, 0], np.where(open_, 1 - sure, 0))
    return (covariance**2) @ weight / (np.diag(covariance) + _NOISE)


def _classified(
    looks: NDArray[np.float64], rows: NDArray[np.int64], kinds: NDArray[np.int64], count: int
) -> NDArray[np.float64]:
    """(n, count) of a linear classifier of some rows; of no effect before two kinds are known."""
    present = np.unique(kinds)
    if len(present) < 2:
        return np.ones((len(looks), count))
    model = LogisticRegression(C=_LINEAR, max_iter=300).fit(looks[rows], kinds)
    found = np.zeros((len(looks), count))
    found[:, present] = model.predict_proba(looks)
    return found


def _followed(
    x: NDArray[np.float64], joined: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    n, m = len(x), len(joined)
    if n == m:
        return np.arange(n)[:, None], np.ones((n, 1))
    count = min(_FOLLOWED, m)
    follows = np.zeros((n, count), np.int64)
    following = np.zeros((n, count))
    for rows in np.array_split(np.arange(n), -(-n // MOST)):
        alike = x[rows] @ x[joined].T
        near = np.argpartition(-alike, count - 1, axis=1)[:, :count]
        cosines = np.take_along_axis(alike, near, axis=1)
        order = np.argsort(-cosines, axis=1, kind="stable")
        follows[rows] = np.take_along_axis(near, order, axis=1)
        following[rows] = np.maximum(np.take_along_axis(cosines, order, axis=1), 1e-6)
    follows[joined], following[joined] = np.arange(m)[:, None], 0
    following[joined, 0] = 1
    return follows, following / following.sum(axis=1, keepdims=True)


def _standard(looks: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean 0 and one deviation in each column, and all rows of mean length 1."""
    if not len(looks):
        return looks
    x = looks - looks.mean(axis=0)
    deviation = x.std(axis=0)
    x = (x / np.where(deviation > 0, deviation, 1)).clip(-_CLIP, _CLIP)
    return x / max(float(np.sqrt((x**2).sum(axis=1).mean())), 1e-12)
