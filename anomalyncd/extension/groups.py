"""Unknown regions that hold together: the new classes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anomalyncd.discovery import number_of_kinds, stability
from anomalyncd.discovery.discover import NEAR_CHANCE, cluster
from anomalyncd.inference.similarity import directions
from anomalyncd.storage.cache import Cache

MEMBERS = 32  # clusterings that vote, as in a discovery
FEWEST_REGIONS = 4  # of a new class …
FEWEST_IMAGES = 3  # … and the photographs that they are from
_NEIGHBOURS = 3  # whose mean distance counts: one alone may itself be odd


@dataclass(frozen=True)
class Group:
    """Unknown regions that are more like each other than like any known one."""

    rows: NDArray[np.int64]  # of the unknown regions
    stability: float  # see `discovery.stability`; 1 if the unknown regions are of one kind


@dataclass(frozen=True)
class Unknown:
    """All unknown regions so far, m of them."""

    descriptors: NDArray[np.float32]  # (m, turns, kinds, width), see `discovery.descriptors`
    tokens: NDArray[np.float32]  # (m, width) class tokens
    images: NDArray[np.int64]  # (m,) which photograph each is of
    days: NDArray[np.int64]  # (m,) the extension that it came with


def gather(
    unknown: Unknown,
    known: NDArray[np.float32],
    days: NDArray[np.int64],
    *,
    seed: int,
    cache: Cache,
) -> list[Group]:
    """Sort unknown regions into kinds, and keep what holds together of each.

    Args:
        unknown: regions.
        known: (n, width) class tokens of regions of the learned classes.
        days: (n,) the extension that each came with; 0: the first run.
        seed: of the clusterings.
        cache: keeps each clustering.

    Returns:
        Groups of at least FEWEST_REGIONS regions of FEWEST_IMAGES photographs, the largest first.
    """
    found = []
    for rows, stable in _kinds(unknown, seed, cache):
        rows = _core(unknown, rows, known, days)
        several = len(np.unique(unknown.images[rows])) >= FEWEST_IMAGES
        if len(rows) >= FEWEST_REGIONS and several:
            found.append(Group(rows, stable))
    return sorted(found, key=lambda group: -len(group.rows))


def certain(days: NDArray[np.int64], first: int) -> NDArray[np.bool_]:
    """Known regions that cannot be of a kind that first appeared with an extension.

    Those that came with it, or later, may be of the new kind without having been noticed, so they
    are no examples of the classes that they have.

    Args:
        days: (n,) the extension that each region came with.
        first: the extension with which the new kind appeared, 1 or later.
    """
    return days < first


def _kinds(unknown: Unknown, seed: int, cache: Cache) -> list[tuple[NDArray[np.int64], float]]:
    """Rows of each kind and how stable it is; a single kind if more are hardly beyond chance."""
    n = len(unknown.tokens)
    numbers = number_of_kinds.candidates(n)
    if numbers:
        content = np.ascontiguousarray(unknown.descriptors).tobytes()
        made_of: list[object] = [hashlib.blake2b(content).hexdigest()]
        found = cluster(unknown.descriptors, numbers, MEMBERS, seed, cache, made_of)
        if found.best.score >= NEAR_CHANCE:
            judged = stability.of_classes(found.of_best, found.classes, np.ones(n), None, seed)
            return [
                (np.flatnonzero(found.classes == k), one.stability) for k, one in enumerate(judged)
            ]
    return [(np.arange(n), 1.0)]


def _core(
    unknown: Unknown,
    rows: NDArray[np.int64],
    known: NDArray[np.float32],
    days: NDArray[np.int64],
) -> NDArray[np.int64]:
    """The rows whose nearest are others of them, not known regions; the rest is left out."""
    while len(rows) > _NEIGHBOURS:
        reference = known[certain(days, int(unknown.days[rows].min()))]
        centre = reference.mean(axis=0)
        own = directions((unknown.tokens[rows] - centre).astype(float))
        others = directions((reference - centre).astype(float))
        within = own @ own.T
        np.fill_diagonal(within, -np.inf)
        together = _nearest(within) > _nearest(own @ others.T)
        if together.all():
            return rows
        rows = rows[together]
    return rows[:0]


def _nearest(cosines: NDArray) -> NDArray:
    """(a, b) → (a,) mean of the highest few of each row."""
    return np.sort(cosines, axis=1)[:, -_NEIGHBOURS:].mean(axis=1)
