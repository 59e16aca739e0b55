"""Metrics that compare predictions with labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score, roc_auc_score

from anomalyncd.types import UNLABELLED, Labels, Regions, Scores


def confusion(targets: ArrayLike, predicted: ArrayLike, size: int = 0) -> NDArray[np.int64]:
    """Count pairs: (k, k), rows = true, columns = predicted; k classes, at least `size`."""
    targets, predicted = np.asarray(targets), np.asarray(predicted)
    if targets.shape != predicted.shape or targets.size == 0:
        raise ValueError(
            f"{targets.shape} targets and {predicted.shape} predictions: expected equal numbers ≥ 1"
        )
    if targets.min() < 0 or predicted.min() < 0:
        raise ValueError("a class below 0; expected to be given only what has a class")
    k = max(size, int(targets.max()) + 1, int(predicted.max()) + 1)
    table = np.zeros((k, k), np.int64)
    np.add.at(table, (targets, predicted), 1)
    return table


def match(targets: ArrayLike, predicted: ArrayLike, size: int = 0) -> NDArray[np.int64]:
    """Match predicted classes one-to-one with true classes so that most samples agree (Hungarian).

    Returns:
        (k,), the true class of each predicted one, over k as in `confusion`.
    """
    true, found = linear_sum_assignment(confusion(targets, predicted, size), maximize=True)
    return true[np.argsort(found)]


def score(targets: ArrayLike, predicted: ArrayLike) -> Scores:
    """Compare a clustering with the truth.

    Args:
        targets: (n,) true classes, non-negative integers.
        predicted: (n,) predicted classes, in any numbering.

    Raises:
        ValueError: the lengths differ or are 0, or a class is below 0.

    Example:
        >>> score([0, 0, 1, 1], [1, 1, 0, 0])
        Scores(nmi=1.0, ari=1.0, f1=1.0)
    """
    table = confusion(targets, predicted)
    agreeing = table[match(targets, predicted), np.arange(len(table))].sum()
    return Scores(
        nmi=float(normalized_mutual_info_score(targets, predicted)),
        ari=float(adjusted_rand_score(targets, predicted)),
        f1=float(agreeing / table.sum()),
    )


def normal_recall(
    targets: ArrayLike, predicted: ArrayLike, matching: NDArray[np.int64], normal: int | None
) -> float | None:
    """Share of the defect-free samples whose predicted class is matched to the normal class.

    Args:
        targets: (n,) true classes, non-negative integers.
        predicted: (n,) predicted classes, in any numbering.
        matching: (k,), the true class of each predicted one, from `match`. It is not computed
            here: with a tie several matchings are best, and a run must use the same one throughout.
        normal: the defect-free class, None if there is none.

    Returns:
        1 at best; None if nothing is defect-free.
    """
    matched = matching[np.asarray(predicted)]
    is_normal = np.asarray(targets) == normal
    return float((matched[is_normal] == normal).mean()) if is_normal.any() else None


def region_targets(
    labels: Labels, regions: Regions, truth_of: Callable[[int], NDArray[np.bool_] | None]
) -> NDArray[np.int64]:
    """The true class of each region: its image's, if it overlaps the true defect.

    A region that does not is a false alarm, so its class is the normal one. Without a truth mask a
    region has its image's class.

    Args:
        labels: of the images.
        regions: cropped from them.
        truth_of: image index → truth mask (h, w), None if there is none.

    Returns:
        (n_regions,) classes; UNLABELLED if the image is, or if there is no normal class to assign.
    """
    targets = labels.targets[regions.image_index].copy()
    beside = UNLABELLED if labels.normal is None else labels.normal
    for image in np.unique(regions.image_index[targets != UNLABELLED]):
        truth = truth_of(int(image))
        if truth is None or not truth.any():
            continue
        for region in np.flatnonzero(regions.image_index == image):
            left, top, right, bottom = regions.boxes[region].clip(min=0)
            if not truth[top:bottom, left:right].any():
                targets[region] = beside
    return targets


def image_auroc(peaks: ArrayLike, defective: ArrayLike) -> float | None:
    """How well the highest score of an image separates defective from defect-free images.

    Args:
        peaks: (n,) highest value of each map.
        defective: (n,) bool.

    Returns:
        Area under the ROC curve, 1 at best; None if all images are of one kind.
    """
    defective = np.asarray(defective, bool)
    if defective.all() or not defective.any():
        return None
    return float(roc_auc_score(defective, np.asarray(peaks)))


def detection_rates(found: ArrayLike, defective: ArrayLike) -> tuple[float | None, float | None]:
    """False positive and false negative rate of detection.

    Args:
        found: (n,) bool, a defect was found in the image.
        defective: (n,) bool, the image has a defect.

    Returns:
        False positive rate, the share of defect-free images in which one was found; false negative
        rate, the share of defective images in which none was. 0 at best; None without such images.
    """
    found, defective = np.asarray(found, bool), np.asarray(defective, bool)
    return (
        None if defective.all() else float(found[~defective].mean()),
        float(1 - found[defective].mean()) if defective.any() else None,
    )


def pixel_auroc(
    pairs: Iterable[tuple[NDArray[np.uint8], NDArray[np.bool_]]],
) -> float | None:
    """How well the maps separate defective from normal pixels, over all images together.

    An 8-bit map has 256 levels, so the ROC curve follows from two histograms, for any number of
    images.

    Args:
        pairs: an 8-bit map (h, w), and the truth at its resolution, True = defect.

    Returns:
        Area under the ROC curve, 1 at best; None if all pixels are of one kind.
    """
    counts = np.zeros((2, 256))  # normal, defective
    for scores, truth in pairs:
        counts[1] += np.bincount(scores[truth], minlength=256)
        counts[0] += np.bincount(scores[~truth], minlength=256)
    if not counts.sum(axis=1).all():
        return None
    levels = np.tile(np.arange(256), 2)
    kinds = np.repeat([False, True], 256)
    return float(roc_auc_score(kinds, levels, sample_weight=counts.ravel()))
