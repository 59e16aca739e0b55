"""predictions.csv and regions.csv: every prediction, for other programs to read."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomalyncd.inference.classify import Predictions
from anomalyncd.regions.cropping import Cropped
from anomalyncd.storage.atomic import atomic_write
from anomalyncd.storage.jobs import Job
from anomalyncd.types import UNLABELLED, VERDICTS, Labels, Regions, Sample, class_name


def write_predictions(
    path: Path,
    samples: Sequence[Sample],
    cropped: Cropped,
    predictions: Predictions,
    class_names: Sequence[str],
    labels: Labels | None,
) -> None:
    """One row per image."""
    regions = cropped.regions
    scores = np.zeros(len(samples))
    np.maximum.at(scores, regions.image_index, regions.scores)
    targets = labels.targets if labels else np.full(len(samples), UNLABELLED)
    columns = "id image class class_name confidence true_class anomaly_score regions main_elements"
    rows = (
        [s.id, s.image, *_class(c, class_names), f"{p:.4f}", _name(labels, t), f"{a:.4f}", n, m, th]
        for s, c, p, t, a, n, m, th in zip(
            samples,
            predictions.image_class,
            predictions.image_confidence,
            targets,
            scores,
            np.bincount(regions.image_index, minlength=len(samples)),
            cropped.counts,
            cropped.thresholds,
            strict=True,
        )
    )
    write_table(path, [*columns.split(), "threshold"], rows)


def write_regions(
    path: Path,
    samples: Sequence[Sample],
    regions: Regions,
    predictions: Predictions,
    class_names: Sequence[str],
    labels: Labels | None,
    targets: NDArray[np.int64] | None,
) -> None:
    """One row per region; boxes in pixels of the image, right and bottom exclusive."""
    columns = (
        "region id left top right bottom area anomaly_score class class_name confidence true_class"
    )
    rows = (
        [
            number,
            samples[i].id,
            *box,
            area,
            f"{a:.4f}",
            *_class(c, class_names),
            f"{p:.4f}",
            _name(labels, t),
        ]
        for number, i, box, area, a, c, p, t in zip(
            range(len(regions)),
            regions.image_index,
            regions.boxes,
            regions.areas,
            regions.scores,
            predictions.region_class,
            predictions.region_confidence,
            targets if targets is not None else np.full(len(regions), UNLABELLED),
            strict=True,
        )
    )
    write_table(path, columns.split(), rows)


def write_sweep(path: Path, runs: Sequence[Job]) -> None:
    """One row per finished run of a sweep."""
    scores = {f"image_{name}": name for name in ("nmi", "ari", "f1")}
    others = ("region_nmi", "region_ari", "region_f1", "image_auroc", "pixel_auroc", "aupro")
    scores |= {name: name for name in others}
    rows = (
        [
            run.name,
            run.settings["dataset"]["kind"],
            run.settings["category"],
            run.detector,
            run.settings["seed"],
            run.settings.get("evaluation", {}).get("region_labels", "mask"),
            *(run.scores.get(name, "") for name in scores.values()),
        ]
        for run in runs
    )
    write_table(
        path,
        ["folder", "dataset", "category", "detector", "seed", "region_labels", *scores],
        rows,
    )


def _class(class_id: int, names: Sequence[str]) -> tuple[int | str, str]:
    """The columns `class` and `class_name`: a verdict has no number."""
    return VERDICTS.get(class_id, class_id), class_name(class_id, names)


def _name(labels: Labels | None, target: int) -> str:
    return labels.classes[target] if labels and target != UNLABELLED else ""


def write_table(path: Path, columns: list[str], rows: Iterable[Iterable[Any]]) -> None:
    """Write a table atomically."""
    # surrogateescape: a file name that is not valid Unicode is written as its own bytes
    with (
        atomic_write(path) as draft,
        draft.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
