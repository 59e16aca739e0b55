"""Where predictions meet the labels of novel images, and the only place (reference section 10)."""

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
            f"{targets.shape} targets and {predicted.shape} predictions: expected as many, not none"
        )
    if targets.min() < 0 or predicted.min() < 0:
        raise ValueError("a class below 0; expected to be given only what has a class")
    k = max(size, int(targets.max()) + 1, int(predicted.max()) + 1)
    table = np.zeros((k, k), np.int64)
    np.add.at(table, (targets, predicted), 1)
    return table


def match(targets: ArrayLike, predicted: ArrayLike, size: int = 0) -> NDArray[np.int64]:
    """Assign every predicted class to its own true class so that most samples agree (Hungarian).

    Returns:
        (k,), the true class of each predicted one, over k as in `confusion`.
    """
    true, found = linear_sum_assignment(confusion(targets, predicted, size), maximize=True)
    return true[np.argsort(found)]


def score(targets: ArrayLike, predicted: ArrayLike) -> Scores:
    """Compare a clustering with the truth.

    Args:
        targets: (n,) true classes, non-negative integers.
        predicted: (n,) found classes; their numbering is free.

    Raises:
        ValueError: lengths differ, nothing to compare, or a class is below 0.

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
    """Share of the defect-free samples whose found class is matched to the normal class.

    Args:
        targets: (n,) true classes, non-negative integers.
        predicted: (n,) found classes; their numbering is free.
        matching: (k,), the true class of each found one, as `match` gives it. It is not computed
            here, since a tie has several best matchings and a run must use one throughout.
        normal: the true class of what is defect-free, None where there is none.

    Returns:
        1 at best; None where nothing is defect-free.
    """
    matched = matching[np.asarray(predicted)]
    is_normal = np.asarray(targets) == normal
    return float((matched[is_normal] == normal).mean()) if is_normal.any() else None


def region_targets(
    labels: Labels, regions: Regions, truth_of: Callable[[int], NDArray[np.bool_] | None]
) -> NDArray[np.int64]:
    """The true class of each region: its image's, if it holds any of the true defect.

    A region beside the defect is a false alarm, thus of the normal class. Without a truth mask a
    region has its image's class.

    Args:
        labels: of the images.
        regions: cut from them.
        truth_of: the truth mask (h, w) of an image by its index, None where there is none.

    Returns:
        (n_regions,) classes, UNLABELLED where the image is or where there is no normal class.
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
    """How well the highest score of an image tells defective from defect-free ones.

    Args:
        peaks: (n,) highest value of each map.
        defective: (n,) bool.

    Returns:
        Area under the ROC curve, 1 at best; None where all images are of one kind.
    """
    defective = np.asarray(defective, bool)
    if defective.all() or not defective.any():
        return None
    return float(roc_auc_score(defective, np.asarray(peaks)))


def detection_rates(found: ArrayLike, defective: ArrayLike) -> tuple[float | None, float | None]:
    """How often images are taken for what they are not.

    Args:
        found: (n,) bool, a defect was found in the image.
        defective: (n,) bool, it has one.

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
    """How well the maps tell defective from sound pixels, over all images together.

    An 8-bit map has 256 levels, so two histograms hold all that the ROC curve needs, however many
    images there are.

    Args:
        pairs: of an 8-bit map (h, w) and the truth at its resolution, True = defect.

    Returns:
        Area under the ROC curve, 1 at best; None where all pixels are of one kind.
    """
    counts = np.zeros((2, 256))  # sound, defective
    for scores, truth in pairs:
        counts[1] += np.bincount(scores[truth], minlength=256)
        counts[0] += np.bincount(scores[~truth], minlength=256)
    if not counts.sum(axis=1).all():
        return None
    levels = np.tile(np.arange(256), 2)
    kinds = np.repeat([False, True], 256)
    return float(roc_auc_score(kinds, levels, sample_weight=counts.ravel()))
