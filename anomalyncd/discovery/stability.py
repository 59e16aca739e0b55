"""How sure each class of a consensus is, and what else it might be."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from anomalyncd.discovery.consensus import MAX_COMPARED, co_association

STABLE = 0.75  # stability from which on a class is called stable (Hennig, 2007)
_TOGETHER = 0.4  # members that put two classes into one, for "perhaps the same"
_APART = 0.5  # fewer members than this keep both parts together: "perhaps two kinds"
_SMALLEST_PART = 0.2  # of a class, to be called a kind
_FEWEST = 3  # regions of a part


@dataclass(frozen=True)
class ClassStability:
    """What the members say of one class."""

    stability: float  # mean overlap (Jaccard) with the most similar class of each member
    perhaps_two: bool  # few members keep its two parts together
    perhaps_same_as: int | None  # the class that many members put together with it
    mostly_false_alarms: bool  # its regions hardly exceed what looks defect-free


def of_classes(
    labels: NDArray, classes: NDArray[np.int64], scores: NDArray, weak: float | None, seed: int
) -> list[ClassStability]:
    """Judge each class.

    Args:
        labels: (members, n) of each member.
        classes: (n,) of the consensus, 0 … K − 1, each with a region.
        scores: (n,) anomaly scores.
        weak: a class whose median score is below this holds mostly false alarms; None: unknown.
        seed: of the regions that are compared, if there are many.
    """
    compared = np.arange(len(classes))
    if len(compared) > MAX_COMPARED:
        compared = np.sort(
            np.random.default_rng(seed).choice(compared, MAX_COMPARED, replace=False)
        )
    labels, own = labels[:, compared], classes[compared]
    together = co_association(labels, labels)
    k = int(classes.max()) + 1
    share = np.eye(k)[own] / np.bincount(own, minlength=k).clip(min=1)
    between = share.T @ together @ share  # (K, K): members that put two classes together
    np.fill_diagonal(between, 0)
    found = []
    for c in range(k):
        other = int(between[c].argmax()) if k > 1 else 0
        found.append(
            ClassStability(
                stability=_jaccard(labels, own == c),
                perhaps_two=_falls_apart(together[np.ix_(own == c, own == c)]),
                perhaps_same_as=other if k > 1 and between[c, other] >= _TOGETHER else None,
                mostly_false_alarms=weak is not None
                and bool(np.median(scores[classes == c]) < weak),
            )
        )
    return found


def weak_score(scores: NDArray, empty: NDArray[np.bool_]) -> float | None:
    """Half way from the strongest region without a main element to the median of all others."""
    if not empty.any() or empty.all():
        return None
    highest, typical = float(scores[empty].max()), float(np.median(scores[~empty]))
    return (highest + typical) / 2 if highest < typical else None


def _jaccard(labels: NDArray, inside: NDArray[np.bool_]) -> float:
    best = []
    for own in labels:
        common = np.bincount(own[inside], minlength=int(own.max()) + 1)
        union = np.bincount(own) + inside.sum() - common
        best.append((common / union).max())
    return float(np.mean(best)) if inside.any() else 0.0


def _falls_apart(together: NDArray[np.float64]) -> bool:
    n = len(together)
    if n < 2 * _FEWEST:
        return False
    tree = linkage(squareform(1 - together, checks=False), "ward")
    first = fcluster(tree, 2, "maxclust") == 1
    smaller = min(first.sum(), n - first.sum())
    is_kind = smaller >= max(_FEWEST, _SMALLEST_PART * n)
    return bool(is_kind and together[np.ix_(first, ~first)].mean() < _APART)
