"""The results that a run writes: metrics.json, CSV files, the report and the model's metadata."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from anomalyncd.config import Config, SimulatedDetectorConfig
from anomalyncd.detectors.map_store import StoredMaps
from anomalyncd.discovery.discover import Discovery
from anomalyncd.evaluation.scoring import Evaluation
from anomalyncd.inference.classify import Predictions
from anomalyncd.models import backbone
from anomalyncd.models.backbone import Source
from anomalyncd.models.checkpoint import ModelMetadata
from anomalyncd.regions.cropping import Cropped
from anomalyncd.results import csv_files, report
from anomalyncd.runtime import devices
from anomalyncd.runtime.versions import versions
from anomalyncd.storage.run_folder import RunFolder
from anomalyncd.types import Dataset, ResizeMode

UNTRAINED = (
    "The backbone is untrained (random weights): this run shows that everything works, "
    "but its classes and scores mean little."
)
SIMULATED = (
    "The anomaly maps are simulated from the ground-truth masks; no detector has seen the images."
)
FEW_FOUND = 0.05  # share of images with a defect, below which classes mean little


@dataclass(frozen=True)
class Computed:
    """All that a run has computed, before it is written."""

    config: Config
    dataset: Dataset
    base_classes: tuple[str, ...]
    n_base: int  # base regions
    n_novel: int  # K
    discovery: Discovery | None  # None: no consensus
    source: Source  # of the frozen weights
    frozen_hash: str
    maps: StoredMaps
    cropped: Cropped
    detection: dict[str, float | None]  # quality of maps and masks
    losses: dict[str, float]  # of the last epoch
    head: int  # the one used for prediction
    predictions: Predictions
    evaluation: Evaluation
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    resumed_after: int  # epochs that an earlier process had trained
    device: torch.device
    precision: torch.dtype  # of the frozen blocks


def caveats(
    config: Config, source: Source, *, labelled: bool
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What a reader of the results must know: (warnings, notes)."""
    warnings = [UNTRAINED] if source == "random" else []
    notes = [SIMULATED] if isinstance(config.detector, SimulatedDetectorConfig) else []
    if config.novel_classes == "auto" and labelled:
        notes.append("The number of classes was taken from the label folders.")
    if config.discovery.is_consensus:
        notes.append(
            "Class 0 is for regions without a main element, if there are any: they look "
            "defect-free and are not clustered."
        )
    elif not labelled and config.train.pseudo_label_correction:
        notes.append(
            "Class 0 is meant for defect-free regions: "
            "pseudo-label correction moves regions with a low anomaly score towards it."
        )
    return tuple(warnings), tuple(notes)


def map_caveats(counts: NDArray[np.int64]) -> tuple[str, ...]:
    """What the binarized maps say of themselves, without labels.

    Args:
        counts: (n_images,) main elements of each.
    """
    found = int((counts > 0).sum())
    if found >= FEW_FOUND * len(counts):
        return ()
    return (
        f"The maps find a defect in only {found} of {len(counts)} images, so the classes mean "
        "little: use another detector, or known-good photographs (dataset.good=FOLDER "
        "detector=reference).",
    )


def metrics_of(done: Computed) -> dict[str, Any]:
    """The content of metrics.json, without the times."""
    config, cropped, evaluation = done.config, done.cropped, done.evaluation
    return {
        "dataset": config.dataset.kind,
        "category": config.category,
        "detector": config.detector.label,
        "scores": {level: s and asdict(s) for level, s in evaluation.scores.items()},
        "normal_recall": evaluation.normal_recall,
        "region_labels": config.evaluation.region_labels,
        "detection": done.detection,
        "counts": {
            "images": len(done.dataset.samples),
            "images_without_defect_found": int((cropped.counts == 0).sum()),
            "regions": len(cropped.regions),
            "base_regions": done.n_base,
            "novel_classes": done.n_novel,
            "base_classes": len(done.base_classes),
        },
        **_discovered(done),
        "mebin": {
            "search_range": list(cropped.search_range),
            "gate": cropped.gate,
            "raw_range": done.maps.raw_range,
        },
        "head": done.head,
        "losses": done.losses,
        "seed": config.seed,
        "resumed_after_epochs": done.resumed_after,
        "device": devices.describe(done.device),
        "precision": str(done.precision).removeprefix("torch."),
        "threads": torch.get_num_threads(),  # their number changes the last digits
        "warnings": list(done.warnings),
        "versions": versions(),
    }


def _discovered(done: Computed) -> dict[str, Any]:
    found = done.discovery
    if found is None:
        return {}
    return {
        "novel_classes_candidates": [
            {"k": c.k, "score": round(c.score, 4), "agreement": round(c.agreement, 4)}
            for c in found.candidates
        ],
        "consensus": {
            "members": found.members,
            "regions_compared": found.compared,
            "near_chance": found.is_near_chance,
            "learned": found.learned(done.predictions.region_class),
            "summary": found.sentence,
        },
        "classes": [
            {"class": number, **asdict(judged)} for number, judged in enumerate(found.stability)
        ],
    }


def metadata_of(done: Computed) -> ModelMetadata:
    """All that prediction needs besides the weights."""
    config, cropped = done.config, done.cropped
    return ModelMetadata(
        backbone=backbone.with_absolute_path(config.backbone),
        backbone_source=done.source,
        attention=config.attention,
        mebin=replace(config.mebin, search_range=list(cropped.search_range), gate=cropped.gate),
        regions=config.regions,
        fusion=config.fusion,
        train=config.train,
        raw_range=done.maps.raw_range,
        head=done.head,
        base_classes=done.base_classes,
        class_names=done.evaluation.class_names,
        frozen_hash=done.frozen_hash,
    )


def write(folder: RunFolder, done: Computed, metrics: dict[str, Any]) -> None:
    """Write the CSV files and the report."""
    config, evaluation, predictions = done.config, done.evaluation, done.predictions
    names = evaluation.class_names
    notes = done.notes
    if done.resumed_after:
        notes += (f"Times are of the last call only; it resumed after epoch {done.resumed_after}",)
    csv_files.write_predictions(
        folder.path("predictions.csv"),
        done.dataset.samples,
        done.cropped,
        predictions,
        names,
        done.dataset.labels,
    )
    csv_files.write_regions(
        folder.path("regions.csv"),
        done.dataset.samples,
        done.cropped.regions,
        predictions,
        names,
        done.dataset.labels,
        evaluation.region_targets,
    )
    data = report.ReportData(
        title=f"{config.dataset.kind} / {config.category}",
        subtitle=f"maps: {config.detector.label} · seed {config.seed}",
        warnings=done.warnings,
        notes=notes,
        metrics=metrics,
        config_yaml=folder.path("config.yaml").read_text(encoding="utf-8"),
        samples=done.dataset.samples,
        labels=done.dataset.labels,
        regions=done.cropped.regions,
        region_targets=evaluation.region_targets,
        maps=done.maps,
        region_class=predictions.region_class,
        region_confidence=predictions.region_confidence,
        image_class=predictions.image_class,
        image_confidence=predictions.image_confidence,
        class_names=names,
        matching=evaluation.matching,
        resize_mode=cast(ResizeMode, config.regions.resize_mode),
        discovery=done.discovery,
    )
    report.write_report(folder.path("report.html"), data)
