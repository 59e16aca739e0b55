"""predictions.csv and regions.csv: every prediction, for other programs to read."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from anomalyncd.inference.assignment import Predictions
from anomalyncd.regions.image_crops import Cropped
from anomalyncd.storage.atomic import atomic_write
from anomalyncd.types import UNLABELLED, VERDICTS, Labels, Regions, Sample, class_name

if TYPE_CHECKING:  # only a sweep needs it
    from anomalyncd.storage.jobs import Job

PREDICTION = (
    *("id", "image", "class", "class_name", "confidence", "true_class", "anomaly_score"),
    *("regions", "main_elements", "threshold"),
)
REGION = (
    *("region", "id", "left", "top", "right", "bottom", "area", "anomaly_score"),
    *("class", "class_name", "confidence", "true_class"),
)


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
    rows = (
        prediction_row(
            s.id, s.image, c, class_name(c, class_names), p, a, n, m, th, _name(labels, t)
        )
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
    write_rows(path, PREDICTION, rows)


def prediction_row(
    id: str,
    image: str | Path,
    class_id: int,
    name: str,
    confidence: float,
    anomaly_score: float,
    regions: int,
    main_elements: int,
    threshold: float,
    true_class: str = "",
) -> list[Any]:
    """A row of predictions.csv; a verdict has no number.

    The image's path is absolute, so that the table can be read from any folder.
    """
    return [
        *(
            id,
            os.path.abspath(image),
            VERDICTS.get(class_id, class_id),
            name,
            f"{confidence:.4f}",
            true_class,
        ),
        *(f"{anomaly_score:.4f}", regions, main_elements, threshold),
    ]


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
    rows = (
        region_row(
            number, samples[i].id, box, area, a, c, class_name(c, class_names), p, _name(labels, t)
        )
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
    write_rows(path, REGION, rows)


def region_row(
    number: int,
    id: str,
    box: Iterable[int],
    area: int,
    anomaly_score: float,
    class_id: int,
    name: str,
    confidence: float,
    true_class: str = "",
) -> list[Any]:
    """A row of regions.csv; a verdict has no number."""
    return [
        *(number, id, *box, area, f"{anomaly_score:.4f}"),
        *(VERDICTS.get(class_id, class_id), name, f"{confidence:.4f}", true_class),
    ]


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
    write_rows(
        path,
        ["folder", "dataset", "category", "detector", "seed", "region_labels", *scores],
        rows,
    )


def _name(labels: Labels | None, target: int) -> str:
    return labels.classes[target] if labels and target != UNLABELLED else ""


def write_rows(path: Path, columns: Sequence[str], rows: Iterable[Iterable[Any]]) -> None:
    """Write a table atomically, row by row."""
    # surrogateescape: a file name that is not valid Unicode is written as its own bytes
    with (
        atomic_write(path) as draft,
        draft.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
