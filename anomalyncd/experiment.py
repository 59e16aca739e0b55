"""The paper's overview figure as code: from images and anomaly maps to classes of defects."""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import OmegaConf

from anomalyncd import (
    backbone,
    catalog,
    checkpoint,
    console,
    cutting,
    detectors,
    devices,
    fit,
    maps,
    metrics,
    model,
    report,
    tables,
    tracking,
)
from anomalyncd.cache import Cache
from anomalyncd.classify import Assignment, assign, classify
from anomalyncd.config import Config
from anomalyncd.errors import InputError
from anomalyncd.images import read_mask
from anomalyncd.run_folder import RunFolder
from anomalyncd.types import UNLABELLED, Dataset, Fit, Labels, Regions, Scores

log = logging.getLogger(__name__)

UNTRAINED = (
    "The backbone is untrained (random weights): this run shows that everything works, "
    "but its classes and scores mean little."
)
SIMULATED = (
    "The anomaly maps are simulated from the truth masks; no detector has looked at the images."
)


@dataclass(frozen=True)
class Outcome:
    folder: Path
    metrics: dict[str, Any]
    was_finished: bool  # nothing was computed: the run had been there


def run(config: Config) -> Outcome:
    """Compute one run, or go on with it, or recognise that it is finished.

    Raises:
        InputError: something that the user gave cannot be used.
    """
    folder = RunFolder.of(config)
    if folder.finished and config.rerun:
        folder.set_aside()
    with folder.held(), console.logging_to(folder.path("log.txt"), quiet=config.quiet):
        if folder.finished:
            log.info("Finished before: %s (rerun=true computes it again)", folder.root)
            return Outcome(folder.root, folder.metrics, was_finished=True)
        name = "/".join(folder.root.parts[-5:])
        tracker = tracking.create(config.tracker, folder.root, name, asdict(config))
        try:
            return Outcome(folder.root, _compute(config, folder, tracker), was_finished=False)
        except BaseException as error:
            log.debug("stopped", exc_info=error)  # the log file has what the terminal is spared
            raise
        finally:
            tracker.finish()


def _compute(config: Config, folder: RunFolder, tracker: tracking.Tracker) -> dict[str, Any]:
    log.info("Run folder: %s", folder.root)
    folder.write_text("config.yaml", OmegaConf.to_yaml(OmegaConf.structured(config)))
    cache = Cache(Path(config.cache_root))
    seconds: dict[str, float] = {}
    device = devices.choose(config.device)

    with _timed(seconds, "catalog"):
        dataset = catalog.load(config.dataset, config.category, cache)
        base = catalog.load_base(config.base, cache)
        n_novel = _novel_classes(config, dataset)
        detector = detectors.create(config.detector, config.category)
    log.info("%d images, %d classes to find", len(dataset.samples), n_novel)

    with _timed(seconds, "backbone"):
        stock = backbone.build(config.backbone)
    warnings, notes = _caveats(config, stock)
    for warning in warnings:
        log.warning(warning)
    base_classes = base.labels.classes if base and base.labels else ()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = model.build(
            stock, config.attention, config.fit, n_base=len(base_classes), n_novel=n_novel
        ).to(device)

    with _timed(seconds, "maps"):
        anomaly_maps = maps.collect(detector, dataset, cache)

    with _timed(seconds, "regions"):
        side = config.backbone.side
        cut = cutting.cut_novel(
            dataset.samples, anomaly_maps, config.mebin, config.regions, side, cache
        )
        base_regions = base and cutting.cut_base(base.samples, config.regions, side, cache)
    _require_enough(cut, n_novel)
    log.info(
        "%d regions in %d images, %d of them with a main element; %d base regions",
        len(cut.regions),
        len(dataset.samples),
        (cut.counts > 0).sum(),
        len(base_regions) if base_regions else 0,
    )

    with _timed(seconds, "fit"):
        data = fit.TrainingSet(cut.regions)
        if base and base.labels and base_regions:
            targets = base.labels.targets[base_regions.image_index]
            data = fit.TrainingSet(cut.regions, base_regions, targets)
        state = checkpoint.TrainingState(folder.path("training.safetensors"))
        history = _fit(network, data, config, state, tracker)
        head = fit.best_head(history)

    with _timed(seconds, "classify"):
        probabilities = classify(network, cut.regions, temperature=config.fit.student_temperature)[
            head
        ]
        found = assign(probabilities, cut.regions, config.fusion)

    with _timed(seconds, "score"):
        scores, matching, region_targets = _score(dataset, cut.regions, found, n_novel)
        class_names = _class_names(dataset.labels, matching)

    figures: dict[str, Any] = {
        "dataset": config.dataset.kind,
        "category": config.category,
        "detector": config.detector.label,
        "scores": {level: s and asdict(s) for level, s in scores.items()},
        "counts": {
            "images": len(dataset.samples),
            "images_without_defect": int((cut.counts == 0).sum()),
            "regions": len(cut.regions),
            "base_regions": data.n_base,
            "novel_classes": n_novel,
            "base_classes": len(base_classes),
        },
        "mebin": {"search_range": list(cut.search_range)},
        "head": head,
        "losses": dict(zip(fit.TERMS, history[-1], strict=False)),
        "seed": config.seed,
        "device": devices.describe(device),
        "warnings": warnings,
        "versions": _versions(),
    }
    recipe = checkpoint.Recipe(
        backbone=config.backbone,
        backbone_source=stock.source,
        attention=config.attention,
        mebin=replace(config.mebin, search_range=list(cut.search_range)),
        regions=config.regions,
        fusion=config.fusion,
        fit=config.fit,
        raw_range=anomaly_maps.raw_range,
        head=head,
        base_classes=base_classes,
        class_names=class_names,
        frozen_hash=checkpoint.frozen_hash(network),
    )
    tracker.summarise(
        {f"{level}/{k}": v for level, s in scores.items() if s for k, v in asdict(s).items()}
    )
    with _timed(seconds, "report"):
        checkpoint.save_model(folder.path("model.safetensors"), network, recipe)
        tables.write_predictions(
            folder.path("predictions.csv"), dataset.samples, cut, found, class_names, dataset.labels
        )
        tables.write_regions(
            folder.path("regions.csv"),
            dataset.samples,
            cut.regions,
            found,
            class_names,
            dataset.labels,
            region_targets,
        )
        report.write_report(
            folder.path("report.html"),
            report.Findings(
                title=f"{config.dataset.kind} / {config.category}",
                subtitle=f"maps: {config.detector.label} · seed {config.seed}",
                warnings=tuple(warnings),
                notes=tuple(notes),
                metrics={**figures, "seconds": seconds},
                config_yaml=folder.path("config.yaml").read_text(encoding="utf-8"),
                samples=dataset.samples,
                labels=dataset.labels,
                regions=cut.regions,
                maps=anomaly_maps,
                region_class=found.region_class,
                region_confidence=found.region_confidence,
                image_class=found.image_class,
                image_confidence=found.image_confidence,
                class_names=class_names,
                matching=matching,
                fit=cast(Fit, config.regions.fit),
            ),
        )
    seconds["total"] = sum(seconds.values())
    figures["seconds"] = {stage: round(s, 3) for stage, s in seconds.items()}
    folder.write_json("metrics.json", figures)
    state.discard()
    return figures


def _fit(
    network: model.Model,
    data: fit.TrainingSet,
    config: Config,
    state: checkpoint.TrainingState,
    tracker: tracking.Tracker,
) -> list[list[float]]:
    with console.progress("Training", config.fit.epochs, quiet=config.quiet) as advance:

        def on_epoch(epoch: int, figures: dict[str, float]) -> None:
            tracker.log(figures, epoch)
            log.debug("epoch %d: %s", epoch + 1, figures)
            advance(epoch + 1, f"loss {figures['total']:.3f}")

        return fit.fit(network, data, config.fit, seed=config.seed, state=state, on_epoch=on_epoch)


def _novel_classes(config: Config, dataset: Dataset) -> int:
    if len(dataset.samples) < 2:
        raise InputError("1 image: expected at least 2 to find classes among")
    if config.novel_classes != "auto":
        return int(config.novel_classes)
    if dataset.labels is None:
        raise InputError(
            "novel_classes=auto needs class folders to count and there are none; "
            "say how many classes to find, the defect-free one included: novel_classes=5"
        )
    found = len(dataset.labels.classes)
    if found < 2:
        raise InputError(
            f"novel_classes=auto found {found} class folder; expected at least 2, or say how many "
            "classes to find: novel_classes=5"
        )
    log.info("novel_classes=auto: %d, as many as there are label folders", found)
    return found


def _require_enough(cut: cutting.Cut, n_novel: int) -> None:
    n_images = len(cut.counts)
    if not cut.counts.any():
        lo, hi = cut.search_range
        raise InputError(
            f"no defect found: MEBin saw no main element in any of {n_images} anomaly maps "
            f"(search range {lo:g} to {hi:g}); check that maps are brighter at defects, or give "
            "mebin.search_range=[lo,hi] or a smaller mebin.erosion"
        )
    if len(cut.regions) < n_novel:
        raise InputError(
            f"novel_classes={n_novel}, but only {len(cut.regions)} regions were found in "
            f"{n_images} images; lower novel_classes or give more images"
        )


def _caveats(config: Config, stock: backbone.Backbone) -> tuple[list[str], list[str]]:
    warnings = [UNTRAINED] if stock.source == "random" else []
    notes = [SIMULATED] if config.detector.kind == "simulated" else []
    if config.novel_classes == "auto":
        notes.append("The number of classes was taken from the label folders.")
    return warnings, notes


def _score(
    dataset: Dataset, regions: Regions, found: Assignment, n_novel: int
) -> tuple[dict[str, Scores | None], NDArray[np.int64], NDArray[np.int64] | None]:
    """Where labels meet predictions: scores, the true class of each found one, region targets."""
    labels = dataset.labels
    none = np.full(n_novel, UNLABELLED)
    if labels is None:
        return {"image": None, "region": None}, none, None

    def truth_of(image: int) -> NDArray[np.bool_] | None:
        mask = dataset.samples[image].truth_mask
        return None if mask is None else read_mask(mask)

    region_targets = metrics.region_targets(labels, regions, truth_of)
    scores: dict[str, Scores | None] = {}
    for level, targets, predicted in (
        ("image", labels.targets, found.image_class),
        ("region", region_targets, found.region_class),
    ):
        known = targets != UNLABELLED
        scores[level] = metrics.score(targets[known], predicted[known]) if known.any() else None
    known = labels.targets != UNLABELLED
    if not known.any():
        return scores, none, region_targets
    size = max(n_novel, len(labels.classes))
    matched = metrics.match(labels.targets[known], found.image_class[known], size)[:n_novel]
    matching = np.where(matched < len(labels.classes), matched, UNLABELLED)
    return scores, matching, region_targets


def _class_names(labels: Labels | None, matching: NDArray[np.int64]) -> tuple[str, ...]:
    """A found class is called by the true one that it agrees with best, else by its number."""
    return tuple(
        labels.classes[true] if labels and true != UNLABELLED else f"class {number + 1}"
        for number, true in enumerate(matching)
    )


def _versions() -> dict[str, str]:
    names = ("anomalyncd", "torch", "timm", "kornia", "numpy", "opencv-python-headless")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start
    log.info("%s: %.1f s", stage, seconds[stage])
