"""From image files and maps to regions, one image after the other (as in the release)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anomalyncd.regions import boxes
from tests.oracles.mebin import binarize_one


@dataclass(frozen=True)
class Region:
    image: NDArray[np.uint8]  # (s, s, 3)
    mask: NDArray[np.uint8]  # (s, s)
    area: int  # mask pixels in the box, at the image's resolution
    score: float  # highest normalised anomaly score in the box


def cut(
    images: Sequence[Path], maps: Sequence[NDArray[np.uint8]], lo: float, hi: float, side: int
) -> list[Region]:
    """Regions of all images, stored at `side`, by the search range lo < hi."""
    found = []
    for path, anomaly_map in zip(images, maps, strict=True):
        image = np.asarray(Image.open(path).convert("RGB"))
        height, width = image.shape[:2]
        elements, _, count = binarize_one(anomaly_map, lo, hi)
        mask = np.asarray(
            cv2.resize(
                elements.astype(np.uint8) * np.uint8(255),
                (width, height),
                interpolation=cv2.INTER_NEAREST,
            ),
            np.uint8,
        )
        scores = np.where(anomaly_map < lo, 0, (anomaly_map - lo) / (hi - lo))
        enlarged = np.asarray(
            Image.fromarray(scores.astype(np.float32)).resize(
                (width, height), Image.Resampling.BICUBIC
            )
        )
        for box in boxes.find_boxes(mask, count):
            left, top, right, bottom = (max(edge, 0) for edge in box)
            score = float(enlarged[top:bottom, left:right].max())
            found.append(Region(*boxes.crop(image, mask, box, side, "letterbox"), score))
    return found
