"""The regions of one image, in memory: what a run stores of many, and a deployed model of one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from anomalyncd.config import MebinConfig, RegionsConfig
from anomalyncd.errors import InputError
from anomalyncd.regions.binarization import binarize_one
from anomalyncd.regions.boxes import crop, find_boxes, score_boxes
from anomalyncd.regions.gate import centre_scores
from anomalyncd.types import Box, Regions, ResizeMode

_BASE_COMPONENTS = 1  # a base image gives at most this many boxes besides the largest


@dataclass(frozen=True)
class ImageCrops:
    """The regions of one image."""

    mask: NDArray[np.uint8]  # (h, w) at the image's resolution, 255 = anomalous
    boxes: list[Box]
    crops: list[tuple[NDArray[np.uint8], NDArray[np.uint8], int]]  # image, mask, area
    scores: list[float]
    threshold: float = 0.0
    count: int = 0  # main elements; 0 = looks defect-free

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image."""
        height, width = self.mask.shape
        return height, width


@dataclass(frozen=True)
class Cropped:
    """The regions of the unlabelled images, and how their main elements were found."""

    regions: Regions
    search_range: tuple[float, float]  # levels of the 8-bit maps
    gate: float | None  # likewise; None: the method has none
    thresholds: NDArray  # (n_images,), levels of the 8-bit maps
    counts: NDArray[np.int64]  # (n_images,), main elements; 0 = looks defect-free


def stored_size(image_size: int) -> int:
    """Size of a stored region: 8/7 of a view's, so that random crops have room (256 for 224)."""
    return round(image_size * 8 / 7)


def around_anomalies(
    image: NDArray[np.uint8],
    anomaly_map: NDArray[np.uint8],
    search_range: tuple[float, float],
    mebin_config: MebinConfig,
    config: RegionsConfig,
    image_size: int,
    name: str,
) -> ImageCrops:
    """Crop an image around the main elements of its map.

    Args:
        image: (H, W, 3) RGB.
        anomaly_map: (h, w), normalised over its category.
        search_range: of the category.
        mebin_config: the adaptive method needs its gate.
        config: of the regions.
        image_size: of the network, in pixels.
        name: of the image, for messages.

    Raises:
        InputError: the map has another aspect ratio than the image.
    """
    height, width = image.shape[:2]
    require_same_aspect(name, anomaly_map.shape, (height, width))
    lo, hi = search_range
    found = binarize_one(anomaly_map, lo, hi, mebin_config, image)
    mask = _resize_mask(found.mask, height, width)
    if config.full_mask == "empty" and mask.all():
        mask = np.zeros_like(mask)
    boxes = _boxes(mask, found.count, config)
    scores = score_boxes(anomaly_map, boxes, lo, hi, (height, width))
    if mebin_config.gate is not None:
        scores = centre_scores(scores, lo, hi, mebin_config.gate)
    crops = _crops(image, mask, boxes, image_size, config)
    return ImageCrops(mask, boxes, crops, scores.tolist(), float(found.threshold), found.count)


def around_truth(
    image: NDArray[np.uint8], truth: NDArray[np.bool_], config: RegionsConfig, image_size: int
) -> ImageCrops:
    """Crop an image of the base set around its truth mask, (H, W), at most two regions."""
    mask = truth * np.uint8(255)
    boxes = _boxes(mask, _BASE_COMPONENTS, config)
    crops = _crops(image, mask, boxes, image_size, config)
    return ImageCrops(mask, boxes, crops, scores=[1.0] * len(boxes))


def whole(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """All of an image, made square: (size, size, 3)."""
    return np.asarray(cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA), np.uint8)


def require_same_aspect(name: str, of_map: tuple[int, ...], of_image: tuple[int, int]) -> None:
    """Check that a map covers its whole image: same proportions, or resized to a square.

    Raises:
        InputError: it does not; `name` is the image's.
    """
    (h, w), (height, width) = of_map, of_image
    off = abs(h * width - w * height) / max(height, width)  # in map pixels
    if h != w and off > 2:
        raise InputError(
            f"the anomaly map of {name} is {w} × {h} for an image of {width} × {height}: expected "
            "the same aspect ratio, or a square that covers all of it"
        )


def _boxes(mask: NDArray[np.uint8], count: int, config: RegionsConfig) -> list[Box]:
    return find_boxes(
        mask,
        count,
        padding=config.padding,
        min_size=config.min_size,
        merge_distance=config.merge_distance,
    )


def _crops(
    image: NDArray[np.uint8],
    mask: NDArray[np.uint8],
    boxes: list[Box],
    image_size: int,
    config: RegionsConfig,
) -> list[tuple[NDArray[np.uint8], NDArray[np.uint8], int]]:
    mode = cast(ResizeMode, config.resize_mode)  # checked in config.py
    return [crop(image, mask, box, stored_size(image_size), mode) for box in boxes]


def _resize_mask(mask: NDArray[np.bool_], height: int, width: int) -> NDArray[np.uint8]:
    levels = mask.astype(np.uint8) * np.uint8(255)
    return np.asarray(cv2.resize(levels, (width, height), interpolation=cv2.INTER_NEAREST))
