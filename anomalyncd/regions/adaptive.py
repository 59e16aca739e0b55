"""Binarization that adapts to the maps: a gate for images, a height for masks, an edge for borders.

MEBin asks one question of a map, where its number of components is stable, and thereby answers two:
whether the image has a defect, and where that ends. Here they are asked apart:

1. `gate`: an image whose worst spot lies below a level of the whole pile has no defect.
2. The mask is what lies above 0.65 of the height from the image's median to its peak; above up to
   0.75 of it where the gate is higher, since backgrounds reach that. Only components that reach
   the gate count.
3. `refinement`: the border moves to an edge of the image nearby.

No number depends on the map's scale, so that other detectors need no other settings.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from anomalyncd.regions.gate import spot_level
from anomalyncd.regions.mebin import TOP, Binarized
from anomalyncd.regions.refinement import refine

# Heights above the image's median, as shares of its peak's: of the mask, and how much lower than it
# the extent lies and higher the core, between which the border may move.
_LOWEST, _HIGHEST = 0.65, 0.75
_LEEWAY = 0.2


def binarize_one(
    anomaly_map: NDArray, gate: float, image: NDArray[np.uint8] | None = None
) -> Binarized:
    """Binarize one map, given the gate of its category (`gate.find_gate`).

    Args:
        anomaly_map: (h, w), integers or floats.
        gate: spot level above which an image is taken for defective.
        image: (H, W, 3) RGB, that the map is of; None: the border stays where the map puts it.

    Returns:
        The mask; nothing where the image does not pass the gate, or its map is constant.

    Example:
        >>> blob = np.zeros((40, 40), np.uint8)
        >>> blob[5:20, 5:20], blob[8:17, 8:17] = 60, 90
        >>> found = binarize_one(blob, gate=50)
        >>> found.count, int(found.mask.sum())
        (1, 225)
        >>> binarize_one(blob, gate=100).count
        0
    """
    background, peak = float(np.median(anomaly_map)), float(anomaly_map.max())
    if spot_level(anomaly_map) <= gate or peak <= background:
        return Binarized(np.zeros(anomaly_map.shape, bool), TOP, 0)

    def above(share: float) -> NDArray[np.bool_]:
        return anomaly_map > np.float64(background + share * (peak - background))

    share = min(max((gate - background) / (peak - background), _LOWEST), _HIGHEST)
    mask = _reaching(above(share), anomaly_map > np.float64(gate))
    if image is not None:
        height, width = anomaly_map.shape
        small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        extent = _reaching(above(share - _LEEWAY), mask)
        mask = refine(np.asarray(small, np.uint8), above(share + _LEEWAY) & mask, mask, extent)
    count = cv2.connectedComponents(mask.view(np.uint8), connectivity=8)[0] - 1
    return Binarized(mask, background + share * (peak - background), count)


def _reaching(mask: NDArray[np.bool_], places: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The components of a mask that hold one of the places at least."""
    labels = cv2.connectedComponents(mask.view(np.uint8), connectivity=8)[1]
    kept = np.zeros(labels.max() + 1, bool)
    kept[labels[places & mask]] = True
    return kept[labels] & mask
