"""How sure the discovered classes are, in words: for the report and for metrics.json."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anomalyncd.discovery.discover import Alternative, Discovery
from anomalyncd.discovery.stability import STABLE

_CHANGES = 3  # splits or merges that are shown of another number of classes
_PICTURES = 4  # regions of each part


@dataclass(frozen=True)
class ClassCertainty:
    """How sure a class is, and what else it might be."""

    index: int
    name: str
    stability: float
    is_stable: bool
    remarks: list[str]


@dataclass(frozen=True)
class Change:
    """What another number of classes would split or merge."""

    text: str
    parts: list[list[int]]  # a few regions of each part


@dataclass(frozen=True)
class OtherNumber:
    """One of the best numbers of classes, other than the chosen one."""

    k: int
    score: float
    changes: list[Change]


def of_classes(found: Discovery, names: tuple[str, ...]) -> list[ClassCertainty]:
    """How sure each class is; the defect-free one is left out: it holds what the maps left out."""
    return [
        ClassCertainty(
            index=k,
            name=names[k],
            stability=judged.stability,
            is_stable=judged.stability >= STABLE,
            remarks=[
                *(["perhaps two kinds"] if judged.perhaps_two else []),
                *(
                    [f"perhaps the same as {names[judged.perhaps_same_as]}"]
                    if judged.perhaps_same_as is not None
                    else []
                ),
                *(["mostly false alarms"] if judged.mostly_false_alarms else []),
            ],
        )
        for k, judged in enumerate(found.stability)
        if k or not found.has_normal
    ]


def of_numbers(found: Discovery, names: tuple[str, ...]) -> list[OtherNumber]:
    """The best other numbers of classes, and what would change with them."""
    return [
        OtherNumber(other.k, other.score, _changes(found, other, names))
        for other in found.alternatives
    ]


def pictured(numbers: list[OtherNumber]) -> list[int]:
    """All regions that the changes show, in ascending order."""
    return sorted(
        {r for n in numbers for change in n.changes for part in change.parts for r in part}
    )


def _changes(found: Discovery, other: Alternative, names: tuple[str, ...]) -> list[Change]:
    more = other.k > found.k
    whole, parts = (found.classes, other.classes) if more else (other.classes, found.classes)
    table = np.zeros((int(whole.max()) + 1, int(parts.max()) + 1), np.int64)
    np.add.at(table, (whole, parts), 1)
    parent = table.argmax(axis=0)  # of each part, the class that most of its regions are in
    changes = []
    for k in range(len(table)):
        within = [part for part in range(table.shape[1]) if parent[part] == k and table[k, part]]
        if len(within) < 2:
            continue
        within.sort(key=lambda part: -table[k, part])
        if more:
            sizes = " + ".join(str(table[k, part]) for part in within)
            text = f"{names[k]} would fall into {len(within)} parts, of {sizes} regions"
        else:
            text = f"{_listed([names[part] for part in within])} would be one class"
        regions = [np.flatnonzero((whole == k) & (parts == part)) for part in within]
        changes.append((min(map(len, regions)), Change(text, [_few(r) for r in regions])))
    changes.sort(key=lambda change: -change[0])  # the largest first
    return [change for _, change in changes[:_CHANGES]]


def _few(regions: NDArray[np.int64]) -> list[int]:
    """A few of them, evenly spread."""
    chosen = np.linspace(0, len(regions) - 1, min(_PICTURES, len(regions)))
    return regions[chosen.round().astype(int)].tolist()


def _listed(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]])
