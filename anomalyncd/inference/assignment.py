"""Distributions of regions → classes of regions and of images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anomalyncd.config import FusionConfig
from anomalyncd.inference import fusion
from anomalyncd.types import Regions


@dataclass(frozen=True)
class Predictions:
    """Predicted classes of regions and images, 0 … K − 1."""

    region_class: NDArray[np.int64]  # (n_regions,)
    region_confidence: NDArray[np.float64]
    image_class: NDArray[np.int64]  # (n_images,)
    image_confidence: NDArray[np.float64]


def assign(
    probabilities: NDArray[np.float64], regions: Regions, config: FusionConfig
) -> Predictions:
    """Assign classes to regions and, by fusion, to images.

    Args:
        probabilities: (n_regions, K) of the chosen head.
        regions: in the same order.
        config: how the regions of an image are weighted.
    """
    index = regions.image_index
    match config.weighting:
        case "area":
            areas = regions.areas.astype(float)
            if config.area_unit == "relative":
                areas *= (1024 / regions.image_sizes.max(axis=1)[index]) ** 2
            fused = fusion.fuse(probabilities, areas, index, config.temperature)
        case "score":
            fused = fusion.fuse_by_score(probabilities, regions.scores, index)
        case _:
            fused = fusion.fuse_by_average(probabilities, index)
    return Predictions(probabilities.argmax(1), probabilities.max(1), fused.argmax(1), fused.max(1))
