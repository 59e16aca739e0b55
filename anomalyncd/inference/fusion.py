"""Fuse the class distributions of an image's regions into one for the image."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def fuse(
    probabilities: ArrayLike,
    areas: ArrayLike,
    image_of_region: ArrayLike,
    temperature: float,
) -> NDArray[np.float64]:
    """Average regions within each image, weighted by softmax(√area / temperature).

    Args:
        probabilities: (n_regions, k), one distribution each.
        areas: (n_regions,) anomalous pixels of the region, at the image's own resolution.
        image_of_region: (n_regions,) index of the image, 0 … n_images − 1, each at least once.
        temperature: in pixels; 100 for MVTec AD and 50 for MTD in the paper. Since √area grows with
            resolution, so should this.

    Returns:
        (n_images, k), rows sum to 1.

    Raises:
        ValueError: an image has no region.

    Example:
        >>> fuse([[0.9, 0.1], [0.2, 0.8]], [400, 400], [0, 0], 100).round(2)
        array([[0.55, 0.45]])
    """
    return _weighted_mean(
        probabilities, np.sqrt(np.asarray(areas, float)) / temperature, image_of_region
    )


def fuse_by_average(probabilities: ArrayLike, image_of_region: ArrayLike) -> NDArray[np.float64]:
    """The ablation's plain mean over an image's regions; shapes as in `fuse`."""
    return _weighted_mean(
        probabilities, np.zeros(len(np.asarray(image_of_region))), image_of_region
    )


def fuse_by_score(
    probabilities: ArrayLike, scores: ArrayLike, image_of_region: ArrayLike
) -> NDArray[np.float64]:
    """The ablation's weighting by softmax(anomaly score); shapes as in `fuse`."""
    return _weighted_mean(probabilities, np.asarray(scores, float), image_of_region)


def _weighted_mean(
    probabilities: ArrayLike, log_weights: NDArray[np.float64], image_of_region: ArrayLike
) -> NDArray[np.float64]:
    p = np.asarray(probabilities, float)
    image = np.asarray(image_of_region)
    n_images = int(image.max()) + 1
    if not np.bincount(image).all():
        raise ValueError("an image without a region; expected at least one region of each image")
    highest = np.full(n_images, -np.inf)
    np.maximum.at(highest, image, log_weights)
    weights = np.exp(log_weights - highest[image])
    fused = np.zeros((n_images, p.shape[1]))
    np.add.at(fused, image, weights[:, None] * p)
    return fused / np.bincount(image, weights, minlength=n_images)[:, None]
