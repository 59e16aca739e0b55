"""What a prediction returns for each image, whichever program has computed it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anomalyncd.inference.unknown import Judged
from anomalyncd.regions.image_crops import Cropped
from anomalyncd.types import Box, Regions, class_name


@dataclass(frozen=True)
class Examined:
    """What was found of some images."""

    maps: Sequence[NDArray[np.uint8]]  # (h, w) anomaly map of each
    cropped: Cropped
    judged: Judged

    @property
    def tokens(self) -> NDArray[np.float32] | None:
        """(n_regions, width) class tokens; None: there are no known regions to compare with."""
        return None


@dataclass(frozen=True)
class PredictedRegion:
    """A region of an image, and its class."""

    box: Box  # in image pixels, right and bottom exclusive
    class_id: int  # −1: unknown, unlike every learned class; −2: its image is out of scope
    class_name: str
    confidence: float  # of the class, 0 to 1; of a verdict 1
    anomaly_score: float  # highest normalised anomaly score in the box
    area: int  # anomalous pixels
    unknown_score: float  # how unlike the run's own regions it looks; above 1: unknown
    nearest_class: str  # the learned class that it would have without a verdict


@dataclass(frozen=True)
class Prediction:
    """The class of an image, and its regions: how they decide it, see `unknown.judge`."""

    class_id: int  # −1: unknown, unlike every learned class; −2: out of scope, unlike the product
    class_name: str
    confidence: float
    regions: tuple[PredictedRegion, ...]
    unknown_score: float  # the highest of its regions
    scope_score: float  # how unlike the run's own images it looks; above 1: out of scope
    nearest_class: str  # the learned class that it would have without a verdict


def as_predictions(regions: Regions, found: Judged, names: Sequence[str]) -> list[Prediction]:
    """One prediction for each image; `names` are of the K learned classes."""
    of_image: list[list[PredictedRegion]] = [[] for _ in found.image_class]
    for i, image in enumerate(regions.image_index.tolist()):
        class_id = int(found.region_class[i])
        of_image[image].append(
            PredictedRegion(
                Box(*regions.boxes[i].tolist()),
                class_id,
                class_name(class_id, names),
                float(found.region_confidence[i]),
                float(regions.scores[i]),
                int(regions.areas[i]),
                float(found.region_unknown[i]),
                names[found.region_nearest[i]],
            )
        )
    return [
        Prediction(
            int(class_id),
            class_name(int(class_id), names),
            float(found.image_confidence[i]),
            tuple(of_image[i]),
            float(found.image_unknown[i]),
            float(found.image_scope[i]),
            names[found.image_nearest[i]],
        )
        for i, class_id in enumerate(found.image_class)
    ]
