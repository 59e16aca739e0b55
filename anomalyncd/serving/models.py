"""What a service classifies with, and what becomes of what it finds: answers as plain JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anomalyncd.config import MAX_MEGAPIXELS, UNKNOWN_SHARE
from anomalyncd.inference.predicted import Examined, PredictedRegion, as_predictions
from anomalyncd.results.overlay import mask_in_box
from anomalyncd.types import Box, ResizeMode

Answer = dict[str, Any]  # of one photograph, as JSON
_MOST_OUTLINES, _MOST_POINTS = 20, 200  # of a region, and of one of them


class Model(Protocol):
    """A classifier of photographs, used by one thread at a time."""

    card: dict[str, Any]  # what it says of itself, as JSON

    def answers(self, photographs: Sequence[Image.Image]) -> list[Answer]:
        """Classify photographs that have not been decoded yet.

        Raises:
            InputError: one of them cannot be decoded or used.
        """
        ...

    def known(self, region: int) -> bytes | None:
        """A known region as JPEG; None: there is none of this number, or its photograph is gone."""
        ...


@dataclass(frozen=True)
class Limits:
    """Of all models of a service."""

    threads: int = 0  # to compute with; 0: one for each core
    unknown_share: float = UNKNOWN_SHARE
    max_megapixels: int = MAX_MEGAPIXELS


def as_answers(found: Examined, class_names: Sequence[str], mode: ResizeMode) -> list[Answer]:
    """One for each image; boxes and outlines in pixels of the image."""
    regions = found.cropped.regions
    rows = iter(range(len(regions)))
    answers = []
    for i, one in enumerate(as_predictions(regions, found.judged, class_names)):
        height, width = regions.image_sizes[i].tolist()
        answers.append(
            {
                "class_id": one.class_id,
                "class_name": one.class_name,
                "confidence": one.confidence,
                "unknown_score": one.unknown_score,
                "scope_score": one.scope_score,
                "nearest_class": one.nearest_class,
                "width": width,
                "height": height,
                "regions": [
                    _region(region, np.asarray(regions.masks[next(rows)]), (height, width), mode)
                    for region in one.regions
                ],
            }
        )
    return answers


def _region(
    region: PredictedRegion, mask: NDArray[np.uint8], size: tuple[int, int], mode: ResizeMode
) -> Answer:
    outlines = _outlines(mask, region.box, size, mode) if region.area else []
    return {**asdict(region), "box": list(region.box), "outlines": outlines}


def _outlines(
    stored: NDArray[np.uint8], box: Box, size: tuple[int, int], mode: ResizeMode
) -> list[list[list[int]]]:
    """Polygons around a region's mask, the largest first, in pixels of the image."""
    left, top = max(box.left, 0), max(box.top, 0)
    right, bottom = min(box.right, size[1]), min(box.bottom, size[0])
    part = mask_in_box(stored, box, mode)
    part = part[top - box.top : bottom - box.top, left - box.left : right - box.left]
    inside = (part > 127).astype(np.uint8)
    found, _ = cv2.findContours(inside, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    polygons = []
    for contour in sorted(found, key=cv2.contourArea, reverse=True)[:_MOST_OUTLINES]:
        line = contour
        tolerance = 0.5
        while len(line) > _MOST_POINTS or line is contour:
            line = cv2.approxPolyDP(contour, tolerance, True)
            tolerance *= 2
        polygons.append((line[:, 0] + (left, top)).tolist())
    return polygons
