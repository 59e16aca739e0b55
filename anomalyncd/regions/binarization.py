"""From an anomaly map to the mask of its defects, by the method that the settings name.

MEBin, the thresholds that it is compared with (fixed, Otsu's), and the adaptive method. The paper's
ablation changes only the threshold, so the first three erode by `mebin.erosion`.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from anomalyncd.config import MebinConfig
from anomalyncd.regions import adaptive, mebin
from anomalyncd.regions.mebin import TOP, Binarized


def binarize_one(
    anomaly_map: NDArray[np.uint8],
    lo: float,
    hi: float,
    config: MebinConfig,
    image: NDArray[np.uint8] | None = None,
) -> Binarized:
    """Binarize one map by the method that `config` names.

    - mebin: one threshold for each map, where its component count is stable.
    - fixed: one for all maps, on the scale on which the category's lowest value is 0 and its
      highest 1; 8-bit maps are on it already.
    - otsu: one for each map, which best separates its values into two groups.
    - adaptive: a gate for the image, then a share of its peak's height; see `adaptive.py`.

    Args:
        anomaly_map: (h, w), normalised over its category.
        lo: lower end of MEBin's search range.
        hi: upper end of it.
        config: method and settings; the adaptive method needs `config.gate`.
        image: (H, W, 3) RGB, that the map is of; only the adaptive method looks at it.

    Returns:
        The mask; but for MEBin, every component of it counts as a main element.

    Raises:
        ValueError: the adaptive method without a gate.

    Example:
        >>> blobs = np.zeros((40, 40), np.uint8)
        >>> blobs[5:20, 5:20] = 200
        >>> found = binarize_one(blobs, 0, 255, MebinConfig())
        >>> found.count, bool(found.mask[10, 10])
        (1, True)
    """
    match config.method:
        case "fixed":
            threshold = math.floor(config.threshold * TOP)
        case "otsu":
            threshold = _otsu(anomaly_map)
        case "adaptive":
            if config.gate is None:
                raise ValueError("mebin.gate is missing; regions.gate.find_gate finds it")
            return adaptive.binarize_one(anomaly_map, config.gate, image)
        case _:
            return mebin.binarize_one(
                anomaly_map,
                lo,
                hi,
                step=config.step,
                min_interval=config.min_interval,
                erosion=config.erosion,
            )
    square = np.ones((max(config.erosion, 1),) * 2, np.uint8)  # of side 1: nothing is eroded
    mask = cv2.erode((anomaly_map > threshold).astype(np.uint8), square)
    count = cv2.connectedComponents(mask, connectivity=8)[0] - 1  # the background is one
    return Binarized(mask.view(np.bool_), threshold, count)


def _otsu(anomaly_map: NDArray[np.uint8]) -> int:
    """The level above which a pixel is foreground; TOP for a constant map."""
    if anomaly_map.min() == anomaly_map.max():
        return TOP
    return int(cv2.threshold(anomaly_map, 0, TOP, cv2.THRESH_BINARY | cv2.THRESH_OTSU)[0])
