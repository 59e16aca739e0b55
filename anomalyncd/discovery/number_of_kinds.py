"""How many kinds: the number at which the members agree most, beyond what chance explains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score

MOST = 20  # candidates are 2 to this
REGIONS_PER_KIND = 3  # on average, at least
# A larger number must be better by this much: the score moves by as much when other members are
# drawn.
MARGIN = 0.05
SMOOTHING = (0.125, 0.75, 0.125)  # of a score with those of its neighbours
# Two must be better than all others by this much: a long cloud is always cut in two alike.
MARGIN_OF_TWO = 0.05


@dataclass(frozen=True)
class Candidate:
    """A number of classes among the regions that have a defect, and what speaks for it."""

    k: int
    score: float  # agreement beyond that on structureless data
    agreement: float  # mean adjusted Rand index of two members


def candidates(regions: int) -> list[int]:
    """The numbers that are tried: 2 to 20, and at least three regions each."""
    return list(range(2, min(MOST, regions // REGIONS_PER_KIND) + 1))


def agreement(labels: Sequence[NDArray] | NDArray) -> float:
    """How well members agree: the mean adjusted Rand index of any two of one method.

    Args:
        labels: (members, n); even members are mixtures, odd ones k-means.

    Returns:
        1 if all are the same, about 0 if they have nothing in common.
    """
    found = [
        adjusted_rand_score(first, second)
        for method in (labels[::2], labels[1::2])
        for first, second in combinations(method, 2)
    ]
    return float(np.mean(found)) if found else 0.0


def score(real: NDArray, structureless: NDArray, numbers: Sequence[int]) -> list[Candidate]:
    """Score each number of classes.

    Args:
        real: (members, numbers, n) labels.
        structureless: the same of data without classes, see `members.structureless`.
        numbers: of classes.
    """
    found = []
    for row, k in enumerate(numbers):
        agreed = agreement(real[:, row])
        found.append(Candidate(k, agreed - agreement(structureless[:, row]), agreed))
    return found


def choose(found: Sequence[Candidate]) -> Candidate:
    """The smallest number whose score, smoothed over its neighbours, is within MARGIN of the best.

    Args:
        found: of consecutive numbers.
    """
    scores = np.array([candidate.score for candidate in found])
    if len(found) == 1:
        return found[0]
    smooth = np.convolve(np.pad(scores, 1, "edge"), SMOOTHING, "valid")
    first = 1 if found[0].k == 2 else 0  # two is judged by itself
    best = smooth[first:].max()
    if first and scores[0] > best + MARGIN_OF_TWO:
        return found[0]
    return found[first + int(np.argmax(smooth[first:] >= best - MARGIN))]
