"""From described regions to classes: members, how many kinds, their consensus, how sure it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from anomalyncd.discovery import members as clusterings
from anomalyncd.discovery import number_of_kinds, stability
from anomalyncd.discovery.consensus import MAX_COMPARED, consensus, votes
from anomalyncd.discovery.number_of_kinds import Candidate
from anomalyncd.discovery.stability import STABLE, ClassStability
from anomalyncd.errors import InputError
from anomalyncd.storage.cache import Cache
from anomalyncd.types import Regions

NEAR_CHANCE = 0.1  # score of a number of classes below which they are hardly better than chance
SHOWN = 3  # numbers of classes that the report compares


@dataclass(frozen=True)
class Alternative:
    """Another number of classes, and what would change."""

    k: int
    score: float
    classes: NDArray[np.int64]  # (n,), the largest overlap has the same number as in the chosen


@dataclass(frozen=True)
class Discovery:
    """The consensus. Class 0 is the defect-free one, if a region has no main element.

    K counts it, as everywhere.
    """

    k: int
    members: int
    classes: NDArray[np.int64]  # (n,)
    votes: NDArray[np.float64]  # (n, K), the share of members, rows sum to 1
    candidates: tuple[Candidate, ...]  # with the normal class counted; one if K was given
    alternatives: tuple[Alternative, ...]  # the best other numbers
    stability: tuple[ClassStability, ...]  # (K,)
    has_normal: bool
    clustered: int  # regions with a main element
    compared: int  # those of them whose pairs were compared; the others follow their likes
    images: int
    images_without_defect: int  # in which the maps find none

    @property
    def chosen(self) -> Candidate:
        return next(candidate for candidate in self.candidates if candidate.k == self.k)

    def learned(self, region_class: NDArray[np.int64]) -> float:
        """The share of regions that the network puts into the class of the consensus."""
        return float((region_class == self.classes).mean())

    @property
    def is_near_chance(self) -> bool:
        """Data without any classes would be sorted almost as consistently."""
        several = self.k - self.has_normal > 1  # one class is found by all members
        return several and self.chosen.score < NEAR_CHANCE

    @property
    def sentence(self) -> str:
        """The whole consensus in one plain sentence."""
        if self.is_near_chance:
            return (
                f"The {self.k} classes are near chance: other clusterings of the same regions give "
                "other classes, so do not rely on them."
            )
        judged = self.stability[self.has_normal :]
        stable = sum(one.stability >= STABLE for one in judged)
        kinds = "kind of defect is" if len(judged) == 1 else "kinds of defects are"
        found = f"{stable} of {len(judged)} {kinds} stable"
        if self.compared < self.clustered:
            found += f", by {self.compared} of {self.clustered} regions"
        if not self.images_without_defect:
            return f"{found}."
        missing = f"{self.images_without_defect} of {self.images} images"
        return f"{found}; the maps find no defect in {missing}."


@dataclass(frozen=True)
class Clustered:
    """The members' clusterings of n regions, and the number of classes that they agree on most."""

    numbers: tuple[int, ...]  # of classes that were tried
    labels: NDArray[np.int16]  # (members, len(numbers), n)
    scored: tuple[Candidate, ...]  # the numbers, by how far members agree
    best: Candidate
    classes: NDArray[np.int64]  # (n,) of the best number, the largest first

    def of(self, k: int) -> NDArray[np.int16]:
        """(members, n) labels for k classes."""
        return self.labels[:, self.numbers.index(k)]

    @property
    def of_best(self) -> NDArray[np.int16]:
        """(members, n) labels for the best number of classes."""
        return self.of(self.best.k)


def cluster(
    descriptors: NDArray[np.float32],
    numbers: Sequence[int],
    members: int,
    seed: int,
    cache: Cache,
    made_of: list[object],
    on_member: Callable[[int, int], None] = lambda done, total: None,
) -> Clustered:
    """Cluster regions several times, and choose the number of classes.

    Args:
        descriptors: (n, turns, kinds, width), see `descriptors.describe`.
        numbers: of classes to try, consecutive, each at most n.
        members: how many clusterings vote.
        seed: of their draws.
        cache: keeps each member's clusterings.
        made_of: all that the descriptors were made from.
        on_member: called with the number of members done and of all.
    """
    drawn = clusterings.draw(descriptors, members, seed)
    null = clusterings.structureless(drawn, seed)
    real, chance = [], []
    for done, (member, shadow) in enumerate(zip(drawn, null, strict=True)):
        tried = list(numbers)
        real.append(clusterings.cached(member, tried, seed, cache, [*made_of, "regions"]))
        chance.append(clusterings.cached(shadow, tried, seed, cache, [*made_of, "structureless"]))
        on_member(done + 1, members)
    labels = np.stack(real)
    scored = number_of_kinds.score(labels, np.stack(chance), numbers)
    best = number_of_kinds.choose(scored)
    of_best = consensus(labels[:, list(numbers).index(best.k)], best.k, seed)
    return Clustered(tuple(numbers), labels, tuple(scored), best, of_best)


def discover(
    descriptors: NDArray[np.float32],
    regions: Regions,
    *,
    k: int | None,
    members: int,
    seed: int,
    cache: Cache,
    made_of: list[object],
    on_member: Callable[[int, int], None] = lambda done, total: None,
) -> Discovery:
    """Find the classes that independent clusterings of the regions agree on.

    Regions without a main element are the defect-free class by definition; the others are
    clustered.

    Args:
        descriptors: (n, turns, kinds, width), see `descriptors.describe`.
        regions: the same n.
        k: number of classes, including the defect-free one; None: estimated.
        members: how many clusterings vote.
        seed: of their draws.
        cache: keeps each member's clusterings.
        made_of: all that the descriptors were made from.
        on_member: called with the number of members done and of all.

    Raises:
        InputError: too few regions to find k classes, or to estimate k.
    """
    empty = regions.areas == 0
    rest = np.flatnonzero(~empty)
    normal = int(empty.any())  # classes before those of the clustering
    numbers = _numbers(k, normal, len(rest))
    key: list[object] = [made_of, rest.tolist() if normal else len(rest), members]
    found = cluster(descriptors[rest], numbers, members, seed, cache, key, on_member)
    scored, best, of_rest = found.scored, found.best, found.classes
    k = best.k + normal
    classes = _of_all(of_rest, rest, normal, len(empty))
    voted = np.zeros((len(empty), k))
    voted[empty, 0] = 1
    voted[rest, normal:] = votes(found.of_best, of_rest, best.k)
    weak = stability.weak_score(regions.scores, empty)
    judged = stability.of_classes(found.of_best, of_rest, regions.scores[rest], weak, seed)
    if normal:
        judged = [_after_normal(one) for one in judged]
    judged += [ClassStability(0.0, False, None, False)] * (best.k - len(judged))
    if normal:
        judged.insert(0, ClassStability(1.0, False, None, False))
    others = sorted((c for c in scored if c.k != best.k), key=lambda c: -c.score)[: SHOWN - 1]
    return Discovery(
        k=k,
        members=members,
        classes=classes,
        votes=voted,
        candidates=tuple(Candidate(c.k + normal, c.score, c.agreement) for c in scored),
        alternatives=tuple(
            Alternative(
                c.k + normal,
                c.score,
                _of_all(consensus(found.of(c.k), c.k, seed), rest, normal, len(empty)),
            )
            for c in others
        ),
        stability=tuple(judged),
        has_normal=bool(normal),
        clustered=len(rest),
        compared=min(len(rest), MAX_COMPARED),
        images=len(regions.image_sizes),
        images_without_defect=len(np.unique(regions.image_index[empty])),
    )


def _numbers(k: int | None, normal: int, regions: int) -> list[int]:
    if k is None:
        numbers = number_of_kinds.candidates(regions)
        if not numbers:
            raise InputError(
                f"only {regions} regions with a defect were found, too few to estimate the number "
                "of classes; add images, or set it: novel_classes=3"
            )
        return numbers
    if k - normal > regions:
        raise InputError(
            f"novel_classes={k}, but only {regions} regions with a defect were found; lower "
            "novel_classes or add more images"
        )
    return [k - normal]


def _of_all(
    of_rest: NDArray[np.int64], rest: NDArray[np.int64], normal: int, n: int
) -> NDArray[np.int64]:
    """Classes of all n regions: those of the rest come after the defect-free one, if any."""
    classes = np.zeros(n, np.int64)
    classes[rest] = of_rest + normal
    return classes


def _after_normal(one: ClassStability) -> ClassStability:
    """The same, where the defect-free class has the number 0."""
    other = one.perhaps_same_as
    return replace(one, perhaps_same_as=None if other is None else other + 1)
