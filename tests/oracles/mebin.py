"""Main element binarization as a plain loop: what `regions.mebin` computes, said readably.

One threshold at a time: binarize, erode, label the connected components. Slow, and meant to be:
the tests hold the fast version to it, and `scripts/benchmark` measures against it.
"""

from __future__ import annotations

import math
from itertools import groupby

import cv2
import numpy as np
from numpy.typing import NDArray


def erode(foreground: NDArray[np.bool_], erosion: int) -> NDArray[np.uint8]:
    """One erosion by a square of ones; outside the map counts as foreground; 0 = none."""
    mask = foreground.view(np.uint8)
    if erosion == 0:
        return mask
    return cv2.erode(mask, np.ones((erosion, erosion), np.uint8)).view(np.uint8)


def component_counts(
    anomaly_map: np.ndarray, lo: float, hi: float, step: int = 4, erosion: int = 6
) -> NDArray[np.int64]:
    """Number of 8-connected components at s = 255, 255 - step, … > 0."""
    thresholds = range(255, 0, -step)
    if hi == lo:
        return np.zeros(len(thresholds), np.int64)
    values = anomaly_map.astype(np.float64)
    normalised = np.where(values < lo, 0, (values - lo) / (hi - lo) * 255)
    counts = []
    for s in thresholds:
        foreground = erode(normalised > s, erosion)
        labels, *_ = cv2.connectedComponentsWithStats(foreground, connectivity=8)
        counts.append(labels - 1)  # label 0 is the background
    return np.array(counts, np.int64)


def binarize_one(
    anomaly_map: np.ndarray,
    lo: float,
    hi: float,
    *,
    step: int = 4,
    min_interval: int = 4,
    erosion: int = 6,
) -> tuple[NDArray[np.bool_], float, int]:
    """Mask, threshold in the map's own units, number of components."""
    intervals = []  # of (length, count, last index), in order of appearance
    end = 0
    for count, run in groupby(component_counts(anomaly_map, lo, hi, step, erosion).tolist()):
        length = len(list(run))
        end += length
        if count > 0 and length >= min_interval:
            intervals.append((length, count, end - 1))
    if not intervals:
        return np.zeros(anomaly_map.shape, bool), 255, 0

    longest = max(length for length, _, _ in intervals)
    candidates = [(count, last) for length, count, last in intervals if length == longest]
    count = candidates[0][0]
    last = [last for other, last in candidates if other == count][-1]
    threshold = (255 - last * step) * (hi - lo) / 255 + lo
    if anomaly_map.dtype.kind in "iu":
        threshold = math.floor(threshold)
    return erode(anomaly_map > np.float64(threshold), erosion) > 0, threshold, count
