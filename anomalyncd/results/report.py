"""The results of a run as one self-contained web page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomalyncd.discovery.discover import Discovery
from anomalyncd.results import certainty
from anomalyncd.results.overlay import normalise
from anomalyncd.results.pages import heat_colours, picture_of, write_page
from anomalyncd.types import UNLABELLED, AnomalyMaps, Labels, Regions, ResizeMode, Sample

MAX_TILES = 500
FIRST_TILES, LAST_TILES = 10, 5  # of a class, always visible; those in between are collapsed
MAX_MIXED = 40


@dataclass(frozen=True)
class ReportData:
    """All that the report shows. K = number of discovered classes."""

    title: str
    subtitle: str
    warnings: tuple[str, ...]  # shown prominently, at the top
    notes: tuple[str, ...]  # shown small
    metrics: dict[str, Any]  # as in metrics.json; only mebin.search_range is required
    config_yaml: str
    samples: tuple[Sample, ...]
    labels: Labels | None
    regions: Regions
    region_targets: NDArray[np.int64] | None  # (n_regions,), true classes; None without labels
    maps: AnomalyMaps
    region_class: NDArray[np.int64]  # (n_regions,), 0..K-1
    region_confidence: NDArray[np.floating]  # (n_regions,)
    image_class: NDArray[np.int64]  # (n_samples,), 0..K-1
    image_confidence: NDArray[np.floating]  # (n_samples,)
    class_names: tuple[str, ...]  # (K,)
    matching: NDArray[np.int64]  # (K,), index into labels.classes; -1 = unmatched
    resize_mode: ResizeMode  # how regions that are not square were stored
    discovery: Discovery | None = None  # of a consensus


@dataclass(frozen=True)
class Tile:
    """One region of a contact sheet."""

    id: str
    number: int  # the region's row in regions.csv
    confidence: float
    whole: bool  # nothing was segmented: the region is the entire image
    truth: str | None
    right: bool
    picture: str  # JPEG in base64: the region with its outline, and beside it the heat map


@dataclass(frozen=True)
class DiscoveredClass:
    """One discovered class and its contact sheet."""

    index: int  # 0..K-1
    name: str
    match: str | None  # the true class it was matched to
    normal: bool
    images: int
    regions: int
    confidence: float | None  # median over its images
    labelled: int  # regions whose true class is known
    right: int  # those of them whose true class is the match
    first: list[Tile]  # first, between, last: by falling confidence
    between: list[Tile]
    last: list[Tile]
    left_out: int  # regions without a tile on the page


@dataclass(frozen=True)
class ConfusionRow:
    """The labelled images of one true class."""

    name: str
    counts: list[int]  # per column
    matched: int | None  # the column matched to this class
    recall: float | None


@dataclass(frozen=True)
class Confusion:
    """True classes (rows) against discovered classes (columns), in the order of their matches."""

    columns: list[int]
    rows: list[ConfusionRow]
    precision: list[float | None]  # per column


@dataclass(frozen=True)
class Mixed:
    """An image whose regions belong to several kinds of defect."""

    id: str
    kinds: list[tuple[int, int]]  # discovered class, number of regions
    decision: int
    truth: str | None


def write_report(path: Path, data: ReportData) -> None:
    """Write the page to `path` atomically: a reader sees the old page or the new one, never a part.

    At most `MAX_TILES` regions and the maps of their images are read.
    """
    write_page(
        path,
        "report.html.j2",
        f=data,
        labelled=int((_targets(data) != UNLABELLED).sum()),
        classes=_classes(data),
        confusion=_confusion(data),
        mixed=_mixed(data),
        max_mixed=MAX_MIXED,
        certainty=_certainty(data),
        heat_colours=heat_colours(),
    )


@dataclass(frozen=True)
class Certainty:
    """How sure the classes of a consensus are."""

    sentence: str
    members: int
    classes: list[certainty.ClassCertainty]
    learned: float  # share of regions that the network classifies as the consensus does
    chosen: int
    score: float
    others: list[certainty.OtherNumber]
    pictures: dict[int, str]  # of the regions that other numbers of classes show


def _certainty(f: ReportData) -> Certainty | None:
    found = f.discovery
    if found is None:
        return None
    others = certainty.of_numbers(found, f.class_names)
    return Certainty(
        sentence=found.sentence,
        members=found.members,
        classes=certainty.of_classes(found, f.class_names),
        learned=found.learned(f.region_class),
        chosen=found.k,
        score=found.chosen.score,
        others=others,
        pictures=_pictures(f, certainty.pictured(others)),
    )


def _targets(f: ReportData) -> NDArray[np.int64]:
    """True class per image, all UNLABELLED if there are no labels: (n_samples,)."""
    return f.labels.targets if f.labels else np.full(len(f.samples), UNLABELLED)


def _class_name(f: ReportData, target: int) -> str | None:
    return f.labels.classes[target] if f.labels and target >= 0 else None


def _is_normal(f: ReportData) -> NDArray[np.bool_]:
    """Which discovered classes are matched to the defect-free class: (K,); none without labels."""
    if f.labels is None or f.labels.normal is None:
        return np.zeros(len(f.matching), np.bool_)
    return np.equal(f.matching, f.labels.normal)


def _matched_order(f: ReportData) -> list[int]:
    """Discovered classes in the order of their true classes, unmatched ones last."""
    return sorted(range(len(f.matching)), key=lambda k: (f.matching[k] < 0, f.matching[k], k))


def _classes(f: ReportData) -> list[DiscoveredClass]:
    targets = f.region_targets
    if targets is None:
        targets = np.full(len(f.regions), UNLABELLED)
    right = (targets != UNLABELLED) & (targets == f.matching[f.region_class])
    by_confidence = np.argsort(-f.region_confidence, kind="stable")
    members = [by_confidence[f.region_class[by_confidence] == k] for k in range(len(f.matching))]
    quota = _quota([len(m) for m in members])
    # If a class is too large for the page: its most and its least confident regions.
    shown = [
        m if len(m) <= quota else np.r_[m[: (quota + 1) // 2], m[len(m) - quota // 2 :]]
        for m in members
    ]
    pictures = _pictures(f, np.sort(np.concatenate(shown)).tolist())
    normal = _is_normal(f)

    classes = []
    for k in _matched_order(f):
        tiles = [
            Tile(
                id=f.samples[f.regions.image_index[r]].id,
                number=r,
                confidence=float(f.region_confidence[r]),
                whole=bool(f.regions.areas[r] == 0),
                truth=_class_name(f, targets[r]),
                right=bool(right[r]),
                picture=pictures[r],
            )
            for r in shown[k].tolist()
        ]
        folds = len(tiles) > FIRST_TILES + LAST_TILES
        cuts = (FIRST_TILES, len(tiles) - LAST_TILES) if folds else (len(tiles), len(tiles))
        in_class = f.image_class == k
        classes.append(
            DiscoveredClass(
                index=k,
                name=f.class_names[k],
                match=_class_name(f, f.matching[k]),
                normal=bool(normal[k]),
                images=int(in_class.sum()),
                regions=len(members[k]),
                confidence=float(np.median(f.image_confidence[in_class]))
                if in_class.any()
                else None,
                labelled=int((targets[members[k]] != UNLABELLED).sum()),
                right=int(right[members[k]].sum()),
                first=tiles[: cuts[0]],
                between=tiles[cuts[0] : cuts[1]],
                last=tiles[cuts[1] :],
                left_out=len(members[k]) - len(tiles),
            )
        )
    return classes


def _quota(sizes: list[int]) -> int:
    """The largest number of tiles per class that keeps the page within `MAX_TILES`.

    Tiles that small classes do not need go to the large ones.
    """
    room, quota = MAX_TILES, MAX_TILES
    for used, size in enumerate(sorted(sizes)):
        quota = room // (len(sizes) - used)
        if size > quota:
            break
        room -= size
    return quota


def _pictures(f: ReportData, shown: list[int]) -> dict[int, str]:
    """Draw the regions `shown`, in ascending order: each map is read once, the arrays in order."""
    low, high = f.metrics["mebin"]["search_range"]
    pictures = {}
    image, heat = -1, np.empty((0, 0), np.float32)
    for r in shown:
        if f.regions.image_index[r] != image:
            image = int(f.regions.image_index[r])
            heat = normalise(f.maps[image], low, high)
        pictures[r] = picture_of(f.regions, r, heat, f.resize_mode)
    return pictures


def _confusion(f: ReportData) -> Confusion | None:
    if f.labels is None:
        return None
    matched = {int(true): k for k, true in enumerate(f.matching) if true >= 0}
    columns = _matched_order(f)
    counts = np.zeros((len(f.labels.classes), len(f.matching)), np.int64)
    known = f.labels.targets != UNLABELLED
    np.add.at(counts, (f.labels.targets[known], f.image_class[known]), 1)
    rows = [
        ConfusionRow(
            name=name,
            counts=counts[true, columns].tolist(),
            matched=columns.index(matched[true]) if true in matched else None,
            recall=_ratio(counts[true, matched[true]] if true in matched else 0, counts[true]),
        )
        for true, name in enumerate(f.labels.classes)
    ]
    precision = [
        _ratio(counts[f.matching[k], k], counts[:, k]) if f.matching[k] >= 0 else None
        for k in columns
    ]
    return Confusion(columns, rows, precision)


def _ratio(part: int, whole: NDArray[np.int64]) -> float | None:
    total = int(whole.sum())
    return int(part) / total if total else None


def _mixed(f: ReportData) -> list[Mixed]:
    targets, defect = _targets(f), ~_is_normal(f)
    counts = np.zeros((len(f.samples), len(f.matching)), np.int64)
    np.add.at(counts, (f.regions.image_index, f.region_class), 1)
    several = ((counts > 0) & defect).sum(1) > 1
    return [
        Mixed(
            id=f.samples[i].id,
            kinds=[
                (int(k), int(counts[i, k]))
                for k in np.argsort(-counts[i], kind="stable")
                if counts[i, k] and defect[k]
            ],
            decision=int(f.image_class[i]),
            truth=_class_name(f, targets[i]),
        )
        for i in np.flatnonzero(several)
    ]
