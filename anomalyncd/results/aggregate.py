"""Run folders → tables as published: one block per detector and variant, one row per category.

Figures are over all test images. A category's figure is the mean over seeds; the last row is the
mean over categories. Missing runs are named in the block's notes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import PurePath
from statistics import fmean, stdev
from typing import Any, cast

from omegaconf import MISSING, OmegaConf

from anomalyncd.config import RELEASE, BackboneConfig, Config
from anomalyncd.results.published import (
    CATEGORY_TOLERANCE,
    MEAN_TOLERANCE,
    Figures,
    Published,
    all_categories,
    look_up,
)
from anomalyncd.storage.jobs import STATES, Job, computed_settings, differing

SCORES = ("nmi", "ari", "f1")
FIGURES = (*SCORES, "aupro", "fpr", "fnr", "normal_recall")
_OTHER = object()
_SET_NAMES = {"mvtec": "MVTec AD", "mtd": "MTD"}
_BACKBONE = ("name", "pretrained", "checkpoint", "image_size")
# These change how a figure is computed, not its meaning: published figures hold for them too.
_SAME_FIGURES = ("compat", "train.features", "train.cached_views", "train.precision")
_IN_CAPTION = ("base.kind", "compat", *(f"backbone.{key}" for key in _BACKBONE))
_NAMED = 6  # products not run are listed by name up to this number, or up to half of all


@dataclass(frozen=True)
class Figure:
    """One figure of ours beside the published one."""

    mean: float
    std: float | None  # sample standard deviation over seeds; None for a single one
    published: float | None
    tolerance: float | None  # None: it is not known how much a rerun may differ

    @property
    def difference(self) -> float | None:
        return None if self.published is None else self.mean - self.published

    @property
    def outside(self) -> bool:
        """The difference is larger than that of a rerun of the release."""
        if self.difference is None or self.tolerance is None:
            return False
        return abs(self.difference) > self.tolerance + 1e-9


@dataclass(frozen=True)
class Row:
    name: str
    figures: dict[str, Figure]  # those of FIGURES that are known


@dataclass(frozen=True)
class Block:
    """All runs that differ only in category and seed."""

    dataset: str
    detector: str
    backbone: str
    base: str
    implementation: str  # `corrected`, or `release`: with those faults that change figures
    settings: dict[str, Any]  # not at their default, or different between blocks
    seeds: tuple[int, ...]  # of the finished runs
    published: Published | None
    rows: list[Row]  # categories by name, then their mean if several; empty: none is finished
    notes: list[str]  # what is missing, and why

    @property
    def compared(self) -> bool:
        """Whether some figures have a published one for the same categories."""
        return any(f.published is not None for row in self.rows for f in row.figures.values())


def gather(jobs: Sequence[Job]) -> list[Block]:
    """Sort jobs into blocks, by data set and detector."""
    groups: dict[tuple[str, str], dict[str, list[Job]]] = {}
    for job in jobs:
        if job.settings:
            alike = groups.setdefault((_dataset(job), job.detector), {})
            alike.setdefault(repr(sorted(_variant(job).items())), []).append(job)
    seen: dict[str, list[str]] = {}  # by data set: categories in any of its blocks
    for (dataset, _), variants in groups.items():
        named = {job.settings["category"] for jobs in variants.values() for job in jobs}
        seen[dataset] = sorted({*seen.get(dataset, ()), *named})
    blocks = []
    for (dataset, _), variants in groups.items():
        published = all_categories(dataset)
        expected = sorted({*seen[dataset], *(published if {*published} & {*seen[dataset]} else ())})
        flat = [_variant(alike[0]) for alike in variants.values()]
        blocks += [
            _block(alike, expected, _departures(settings) | apart)
            for alike, settings, apart in zip(variants.values(), flat, differing(flat), strict=True)
        ]
    return sorted(blocks, key=_order)


def ungrouped(jobs: Iterable[Job]) -> list[str]:
    """Notes on runs that failed before their settings were known."""
    return [f"failed: {job.name}: {job.reason}" for job in jobs if not job.settings]


def _dataset(job: Job) -> str:
    return job.settings["dataset"]["kind"]


def _variant(job: Job) -> dict[str, Any]:
    """The settings that runs of a block share; products may lie in separate folders."""
    settings = computed_settings(job.settings)
    if _dataset(job) == "folder":
        settings.pop("dataset.path", None)
    return settings


def _block(jobs: list[Job], expected: Sequence[str], settings: dict[str, Any]) -> Block:
    first = jobs[0]
    detector, of_all = first.detector, first.settings
    as_released = of_all.get("compat") == "release"
    in_caption = {*_IN_CAPTION, *(RELEASE if as_released else ())}
    whole = all_categories(_dataset(first))
    published = None
    if any(job.settings["category"] in whole for job in jobs):  # not own images
        published = look_up(_dataset(first), detector, unlike_published(_variant(first)))
    done: dict[tuple[str, int], Job] = {}
    notes = []
    for job in jobs:
        if job.state == "done":
            kept = done.setdefault(_unit(job), job)
            if kept is not job:
                notes.append(f"found twice, the first is counted: {kept.name} and {job.name}")
    scored = {unit: job.scores for unit, job in done.items() if "nmi" in job.scores}
    notes += _missing(jobs, expected, done, scored)
    return Block(
        dataset=_SET_NAMES.get(_dataset(first), _dataset(first)),
        detector=detector,
        backbone=_backbone(of_all["backbone"]),
        base=_base(of_all["base"]),
        implementation="release" if as_released else "corrected",
        settings={k: v for k, v in sorted(settings.items()) if k not in in_caption},
        seeds=tuple(sorted({seed for _, seed in scored})),
        published=published,
        rows=_rows(scored, whole, published),
        notes=notes,
    )


def _unit(job: Job) -> tuple[str, int]:
    return job.settings["category"], job.settings["seed"]


def _rows(
    scored: dict[tuple[str, int], Figures], whole: tuple[str, ...], published: Published | None
) -> list[Row]:
    names = sorted({category for category, _ in scored})
    by_seed = {
        name: {seed: figures for (category, seed), figures in scored.items() if category == name}
        for name in names
    }
    rows = []
    for name in names:
        theirs, tolerance = _theirs([name], whole, published)
        rows.append(Row(name, _over_seeds(list(by_seed[name].values()), theirs, tolerance)))
    if len(names) > 1:
        theirs, tolerance = _theirs(names, whole, published)
        everywhere = set.intersection(*(set(seeds) for seeds in by_seed.values()))
        of_seeds = [_mean([by_seed[name][seed] for name in names]) for seed in sorted(everywhere)]
        spread = _over_seeds(of_seeds, {}, None) if of_seeds else {}
        ours = _mean([{key: f.mean for key, f in row.figures.items()} for row in rows])
        partly = f" of {len(names)} of {len(whole)}" if set(names) < set(whole) else ""
        figures = {
            key: Figure(mean, spread[key].std if key in spread else None, theirs.get(key), limit)
            for key, mean in ours.items()
            for limit in [_tolerance(key, tolerance)]
        }
        rows.append(Row(f"mean{partly}", figures))
    return rows


def _theirs(
    names: list[str], whole: tuple[str, ...], published: Published | None
) -> tuple[Figures, float | None]:
    """The published mean over these categories, and how far ours may differ from it."""
    if published is None:
        return {}, None
    if set(names) == set(whole):
        return published.mean, MEAN_TOLERANCE
    if not set(names) <= published.categories.keys():
        return {}, None
    tolerance = CATEGORY_TOLERANCE if len(names) == 1 else None
    return _mean([published.categories[name] for name in names]), tolerance


def _mean(figures: Sequence[Figures]) -> Figures:
    """The mean of each figure that all of them have."""
    common = [key for key in FIGURES if all(key in one for one in figures)]
    return {key: fmean(one[key] for one in figures) for key in common}


def _over_seeds(
    seeds: list[Figures], theirs: Figures, tolerance: float | None
) -> dict[str, Figure]:
    return {
        key: Figure(
            mean,
            stdev(one[key] for one in seeds) if len(seeds) > 1 else None,
            theirs.get(key),
            _tolerance(key, tolerance),
        )
        for key, mean in _mean(seeds).items()
    }


def _tolerance(key: str, tolerance: float | None) -> float | None:
    return tolerance if key in SCORES else None


def _missing(
    jobs: list[Job],
    expected: Sequence[str],
    done: dict[tuple[str, int], Job],
    scored: dict[tuple[str, int], Figures],
) -> list[str]:
    """One note for each reason why figures are missing."""
    notes = []
    seeds = sorted({job.settings["seed"] for job in jobs})
    for state in STATES:
        units = [_unit(job) for job in jobs if job.state == state and _unit(job) not in done]
        if state == "failed":
            reasons = {_unit(job): job.reason for job in jobs if job.state == "failed"}
            notes += [f"failed: {_listed([u], seeds)}: {reasons[u]}" for u in units]
        elif units:
            notes.append(f"{state}: {_listed(units, seeds)}")
    if unlabelled := [unit for unit in done if unit not in scored]:
        notes.append(f"no labels, so no scores: {_listed(unlabelled, seeds)}")
    known = {_unit(job) for job in jobs}
    absent = [(name, seed) for name in expected for seed in seeds if (name, seed) not in known]
    strangers = {name for name, _ in absent} - {name for name, _ in known}
    if len(strangers) > max(_NAMED, len(expected) / 2):
        notes.append(f"not run: {len(strangers)} of {len(expected)} products")
        absent = [unit for unit in absent if unit[0] not in strangers]
    if absent:
        notes.append(f"not run: {_listed(absent, seeds)}")
    return notes


def _listed(units: list[tuple[str, int]], seeds: list[int]) -> str:
    """`bottle, cable (seed 1)`: only the category's name if all its seeds are missing."""
    names = []
    for name in dict.fromkeys(name for name, _ in units):
        missing = sorted(seed for category, seed in units if category == name)
        some = ", ".join(map(str, missing))
        names.append(name if missing == seeds else f"{name} (seed {some})")
    return ", ".join(names)


def unlike_published(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of the method that differ from those of the published figures."""
    departs = {
        key: value
        for key, value in _departures(settings).items()
        if key not in _SAME_FIGURES and RELEASE.get(key, _OTHER) != value
    }
    return departs | ({"base.kind": "none"} if settings["base.kind"] == "none" else {})


def _departures(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of the method that are not at their defaults."""
    defaults = _defaults()
    return {k: v for k, v in settings.items() if defaults.get(k, v) not in (v, MISSING)}


@cache
def _defaults() -> dict[str, Any]:
    plain = OmegaConf.to_container(OmegaConf.structured(Config))
    return computed_settings(cast(dict[str, Any], plain))


def _order(block: Block) -> tuple:
    names = (block.dataset, block.detector, block.backbone, block.base, block.implementation)
    return (*names, _sortable(block.settings))


def _sortable(settings: dict[str, Any]) -> list[tuple[str, bool, float, str]]:
    """A sort key for values that are numbers or text."""
    return [
        (key, number, value if number else 0, str(value))
        for key, value in settings.items()
        for number in [isinstance(value, int | float)]
    ]


def _backbone(settings: dict[str, Any]) -> str:
    backbone = BackboneConfig(**settings)
    name = f"{backbone.name} at {backbone.image_size} px"
    if backbone.checkpoint:
        return f"{name} ({PurePath(backbone.checkpoint).name})"
    return name if backbone.pretrained else f"{name} (untrained)"


def _base(settings: dict[str, Any]) -> str:
    return PurePath(settings["path"]).name if "path" in settings else settings["kind"]
