"""One clustering from several: regions that most members put together stay together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import squareform

# Regions whose pairs are compared: the matrix of all pairs grows with the square of their number.
# Beyond it a random part decides the classes, and every other region follows its likes among them.
MAX_COMPARED = 3000


def co_association(first: NDArray, second: NDArray) -> NDArray[np.float64]:
    """The share of members that put two regions into the same class.

    Args:
        first: (members, a) labels.
        second: (members, b) labels of other, or the same, regions.

    Returns:
        (a, b) in [0, 1].

    Example:
        >>> co_association(np.array([[0, 0], [0, 1]]), np.array([[0, 0], [0, 1]]))
        array([[1. , 0.5],
               [0.5, 1. ]])
    """
    total = np.zeros((first.shape[1], second.shape[1]))
    for left, right in zip(first, second, strict=True):
        total += left[:, None] == right[None]
    return total / len(first)


def consensus(labels: NDArray, k: int, seed: int) -> NDArray[np.int64]:
    """The classes that the members agree on most: Ward's hierarchy of their co-association.

    Args:
        labels: (members, n) of each member, in any numbering.
        k: classes to find.
        seed: of the part that is compared, if there are more than MAX_COMPARED regions.

    Returns:
        (n,) classes from 0, the largest first; fewer than k if the members tell fewer apart.
    """
    n = labels.shape[1]
    if k == 1 or n == 1:
        return np.zeros(n, np.int64)
    compared = np.arange(n)
    if n > MAX_COMPARED:
        compared = np.sort(np.random.default_rng(seed).choice(n, MAX_COMPARED, replace=False))
    of_compared = labels[:, compared]
    distance = 1 - co_association(of_compared, of_compared)
    tree = linkage(squareform(distance, checks=False), "ward")
    found = fcluster(tree, k, "maxclust") - 1
    if n > MAX_COMPARED:
        found = _nearest(labels, of_compared, found)
    order = np.argsort(-np.bincount(found), kind="stable")
    return np.argsort(order, kind="stable")[found]


def votes(labels: NDArray, classes: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """The share of members that put each region into each class of the consensus.

    A member's classes are first matched with those of the consensus so that most regions agree.

    Args:
        labels: (members, n).
        classes: (n,) of the consensus, 0 … k − 1.
        k: classes of the consensus.

    Returns:
        (n, k), rows sum to 1; a member's class without a partner votes for that of the consensus
        that most of its regions have.
    """
    found = np.zeros((len(classes), k))
    for own in labels:
        table = np.zeros((int(own.max()) + 1, k))
        np.add.at(table, (own, classes), 1)
        partner = table.argmax(axis=1)
        rows, columns = linear_sum_assignment(table, maximize=True)
        partner[rows] = columns
        found[np.arange(len(classes)), partner[own]] += 1
    return found / len(labels)


def _nearest(
    labels: NDArray, of_compared: NDArray, classes: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Each region's class by its mean co-association with the compared ones of every class."""
    k = int(classes.max()) + 1
    share = np.eye(k)[classes] / np.bincount(classes)
    parts = np.array_split(np.arange(labels.shape[1]), -(-labels.shape[1] // MAX_COMPARED))
    return np.concatenate(
        [(co_association(labels[:, part], of_compared) @ share).argmax(axis=1) for part in parts]
    )
