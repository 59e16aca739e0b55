"""The members of a consensus: clusterings of the same regions that differ in what they look at.

Each member sees two of the depths and two of the turns, reduced to a few dimensions, and is either
a mixture of Gaussians or k-means. What all of them find does not depend on such choices.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from anomalyncd.storage.cache import Cache

DIMENSIONS = 16  # of a member's space
MAX_FITTED = 3000  # regions that a member learns its classes from; it then sorts all
_SEEN = 2  # depths, and turns, of a member
_CLIP = 4.0  # deviations: one odd region must not make an axis of its own
_VERSION = 1
_FILE = "labels.npy"


@dataclass(frozen=True)
class Member:
    """One clustering's view of the regions."""

    number: int
    space: NDArray[np.float64]  # (n, ≤ DIMENSIONS), principal components


def draw(descriptors: NDArray[np.float32], members: int, seed: int) -> list[Member]:
    """Draw what each member looks at.

    Args:
        descriptors: (n, turns, kinds, width), see `descriptors.describe`.
        members: how many.
        seed: of the draws.
    """
    generator = np.random.default_rng(seed)
    _, turns, kinds, _ = descriptors.shape
    drawn = []
    for number in range(members):
        depths = generator.choice(kinds, min(_SEEN, kinds), replace=False)
        seen = generator.choice(turns, min(_SEEN, turns), replace=False)
        columns = [_standard(descriptors[:, seen, depth].mean(1)) for depth in depths]
        drawn.append(Member(number, _principal(np.concatenate(columns, axis=1))))
    return drawn


def structureless(members: list[Member], seed: int) -> list[Member]:
    """The same members over data of the same spread, and correlation, without any classes.

    What is as stable there says nothing of classes: a long cloud is always cut in two alike.
    """
    generator = np.random.default_rng(seed)
    joint = np.concatenate([member.space for member in members], axis=1)
    # A single region has no spread.
    values, vectors = np.linalg.eigh(np.cov(joint, rowvar=False, ddof=min(1, len(joint) - 1)))
    drawn = generator.standard_normal(joint.shape) @ (np.sqrt(values.clip(0)) * vectors).T
    ends = np.cumsum([member.space.shape[1] for member in members])[:-1]
    parts = np.split(drawn, ends, axis=1)
    return [Member(m.number, part) for m, part in zip(members, parts, strict=True)]


def cached(
    member: Member, numbers: list[int], seed: int, cache: Cache, made_of: list[object]
) -> NDArray[np.int16]:
    """A member's clusterings into several numbers of classes: (len(numbers), n).

    Args:
        member: from `draw` or `structureless`.
        numbers: of classes, each at most the number of regions.
        seed: of the first centres.
        cache: keeps the result, so that a killed run resumes with the next member.
        made_of: all that the member's space was made from.
    """

    def build(folder: Path) -> None:
        found = [cluster(member, k, seed) for k in numbers]
        np.save(folder / _FILE, np.stack(found).astype(np.int16))

    key = [_VERSION, made_of, member.number, numbers, seed]
    folder = cache.entry("member", key, build)
    return np.load(folder / _FILE, allow_pickle=False)


def cluster(member: Member, k: int, seed: int) -> NDArray[np.int64]:
    """Cluster a member's space into at most k classes: (n,)."""
    if k == 1:
        return np.zeros(len(member.space), np.int64)
    fitted = member.space
    if len(fitted) > MAX_FITTED:
        generator = np.random.default_rng((seed, member.number))
        fitted = fitted[generator.choice(len(fitted), MAX_FITTED, replace=False)]
    state = int(np.random.SeedSequence((seed, member.number, k)).generate_state(1)[0] >> 1)
    method: KMeans | GaussianMixture
    if member.number % 2:
        method = KMeans(k, n_init=4, random_state=state)
    else:
        spread = float(member.space.var(axis=0).mean())
        method = GaussianMixture(
            k, covariance_type="diag", reg_covar=max(1e-2 * spread, 1e-9), random_state=state
        )
    with warnings.catch_warnings():  # classes that still move, or are one, are good enough to vote
        warnings.simplefilter("ignore", ConvergenceWarning)
        return method.fit(fitted).predict(member.space)


def _standard(columns: NDArray[np.float32]) -> NDArray[np.float64]:
    """Mean 0 and deviation 1 in each column, one share of the whole for each depth."""
    x = np.asarray(columns, np.float64)
    deviation = x.std(axis=0)
    x = (x - x.mean(axis=0)) / np.where(deviation > 0, deviation, 1)
    return x.clip(-_CLIP, _CLIP) / np.sqrt(x.shape[1])


def _principal(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, d) → its first principal components, whose spread is kept; the sign of each is fixed."""
    x = x - x.mean(axis=0)
    _, vectors = np.linalg.eigh(x.T @ x)
    axes = vectors[:, ::-1][:, :DIMENSIONS]
    largest = np.abs(axes).argmax(axis=0)
    return x @ (axes * np.sign(axes[largest, np.arange(axes.shape[1])]))
