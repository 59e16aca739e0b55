"""Evaluate predictions: the only stage that sees both predictions and labels of novel images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anomalyncd.data.images import read_mask
from anomalyncd.evaluation import metrics
from anomalyncd.inference.classify import Predictions
from anomalyncd.types import UNLABELLED, Dataset, Labels, Regions, Scores


@dataclass(frozen=True)
class Evaluation:
    """Agreement of predictions with the labels, if there are any."""

    scores: dict[str, Scores | None]  # at image and region level; None without labels
    normal_recall: dict[str, float | None]  # at both levels; None without a normal class
    matching: NDArray[np.int64]  # (K,), true class of each predicted one, UNLABELLED = none
    class_names: tuple[str, ...]  # (K,)
    region_targets: NDArray[np.int64] | None  # (n_regions,), true classes


def evaluate(
    dataset: Dataset,
    regions: Regions,
    predictions: Predictions,
    n_novel: int,
    region_labels: str = "mask",
) -> Evaluation:
    """Compare predictions with the labels.

    Args:
        dataset: images, their labels and truth masks.
        regions: cropped from them.
        predictions: classes 0 … n_novel − 1 of images and regions.
        n_novel: K.
        region_labels: what the true class of a region is, see `EvaluationConfig`.
    """
    labels = dataset.labels
    unmatched = np.full(n_novel, UNLABELLED)
    scores: dict[str, Scores | None] = {"image": None, "region": None}
    recall: dict[str, float | None] = {"image": None, "region": None}
    if labels is None:
        return Evaluation(scores, recall, unmatched, _class_names(None, unmatched), None)

    def truth_of(image: int) -> NDArray[np.bool_] | None:
        mask = dataset.samples[image].truth_mask
        return None if mask is None or region_labels == "image" else read_mask(mask)

    region_targets = metrics.region_targets(labels, regions, truth_of)
    matching = dict.fromkeys(scores, unmatched)
    for level, targets, predicted in (
        ("image", labels.targets, predictions.image_class),
        ("region", region_targets, predictions.region_class),
    ):
        known = targets != UNLABELLED
        if known.any():
            compared = targets[known], predicted[known]
            # One matching per level for all figures: with a tie, several are best.
            matched = metrics.match(*compared, max(n_novel, len(labels.classes)))
            scores[level] = metrics.score(*compared)
            recall[level] = metrics.normal_recall(*compared, matched, labels.normal)
            is_class = matched[:n_novel] < len(labels.classes)
            matching[level] = np.where(is_class, matched[:n_novel], UNLABELLED)
    names = _class_names(labels, matching["image"])
    return Evaluation(scores, recall, matching["image"], names, region_targets)


def _class_names(labels: Labels | None, matching: NDArray[np.int64]) -> tuple[str, ...]:
    """A predicted class has the name of the true one it is matched to, else a number."""
    return tuple(
        labels.classes[true] if labels and true != UNLABELLED else f"class {number}"
        for number, true in enumerate(matching)
    )
