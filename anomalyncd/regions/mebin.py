"""Main element binarization (MEBin): a threshold at which the component count is stable.

As the threshold falls, a true anomaly stays one component for long, while noise appears and merges.
The threshold is the end of the longest interval with a constant count. The search range is that
of the whole category, so every map is thresholded on the same scale.

Thresholding commutes with flat erosion and with any monotone change of values. So each pixel is
turned into its rank (the number of thresholds that it exceeds), the ranks are eroded once, and
the components of the eroded ranks are counted for all thresholds together.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from types import ModuleType

import cv2
import numpy as np
from numpy.typing import NDArray

from anomalyncd.types import AnomalyMaps

TOP = 255  # thresholds are counted on the 8-bit scale, for any dtype of the map


@dataclass(frozen=True)
class Binarized:
    """One map's main elements."""

    mask: NDArray[np.bool_]  # (h, w), at the map's resolution
    threshold: float  # in the map's units, int for integer maps; TOP where count is 0
    count: int  # components the mask is estimated to have; 0 = none stable, mask empty


def search_range(maps: Iterable[np.ndarray]) -> tuple[float, float]:
    """Lowest and highest of the maps' peaks.

    Reads the maps once, one at a time. The result is int for integer maps.

    Raises:
        ValueError: there is no map, or a map holds NaN or infinity.

    Example:
        >>> search_range([np.array([[0, 90]]), np.array([[10, 200]])])
        (90, 200)
    """
    peaks = [_peak(anomaly_map) for anomaly_map in maps]
    if not peaks:
        raise ValueError("no anomaly maps: the search range needs at least one")
    return min(peaks), max(peaks)


def component_counts(
    anomaly_map: np.ndarray, lo: float, hi: float, step: int = 4, erosion: int = 6
) -> NDArray[np.int64]:
    """Number of 8-connected components at each threshold.

    Args:
        anomaly_map: (h, w), any integer or float dtype.
        lo: value that becomes 0; whatever lies below does too.
        hi: value that becomes 255.
        step: distance between thresholds, which run 255, 255 - step, … > 0.
        erosion: side of the square each foreground is eroded by; 0 = no erosion.

    Returns:
        (n_thresholds,), highest threshold first; all 0 where hi == lo.

    Raises:
        ValueError: hi < lo, step < 1 or step > 255, or the map holds NaN or infinity.

    Example:
        >>> blobs = np.zeros((9, 9), np.uint8)
        >>> blobs[1:3, 1:3], blobs[6:8, 6:8] = 255, 120
        >>> component_counts(blobs, 0, 255, step=100, erosion=0).tolist()
        [0, 1, 2]
    """
    if not 1 <= step <= TOP:
        raise ValueError(f"step is {step}; it must lie in 1…{TOP}")
    lo, hi = float(lo), float(hi)
    if not lo <= hi:
        raise ValueError(f"search range ({lo}, {hi}): the first must not exceed the second")
    n_thresholds = len(range(TOP, 0, -step))
    if hi == lo or _peak(anomaly_map) <= lo:
        return np.zeros(n_thresholds, np.int64)
    ranking = _ranking()
    ranks = _erode(ranking.ranks(anomaly_map, lo, hi, step), erosion)
    return ranking.counts(ranks, n_thresholds)


def binarize_one(
    anomaly_map: np.ndarray,
    lo: float,
    hi: float,
    *,
    step: int = 4,
    min_interval: int = 4,
    erosion: int = 6,
) -> Binarized:
    """Binarize one map, given its category's search range.

    Releases the GIL for nearly all of its time, so maps can be streamed through threads.

    Args:
        anomaly_map: (h, w), any integer or float dtype.
        lo: lower end of the search range.
        hi: upper end of the search range.
        step: distance between thresholds on the scale 0…255.
        min_interval: number of successive thresholds an equal count must hold to be stable.
        erosion: side of the eroding square; 0 = no erosion.

    Raises:
        ValueError: as `component_counts`.
    """
    lo, hi = float(lo), float(hi)  # NumPy integers would overflow below
    counts = component_counts(anomaly_map, lo, hi, step, erosion)
    count, last = _longest_interval(counts.tolist(), min_interval)
    if count == 0:
        return Binarized(np.zeros(anomaly_map.shape, bool), TOP, 0)
    threshold = (TOP - last * step) * (hi - lo) / TOP + lo
    if anomaly_map.dtype.kind == "f":
        # a bare Python float would be rounded to the map's precision before it is compared
        foreground = anomaly_map > np.float64(threshold)
    else:
        threshold = math.floor(threshold)
        foreground = anomaly_map > threshold
    return Binarized(_erode(foreground.view(np.uint8), erosion).view(bool), threshold, count)


def binarize(
    maps: AnomalyMaps,
    *,
    step: int = 4,
    min_interval: int = 4,
    erosion: int = 6,
    search_range: tuple[float, float] | None = None,
) -> list[Binarized]:
    """Binarize the maps of one category; the arguments are those of `binarize_one`.

    `search_range` defaults to the maps' own; with all images defective, set it by hand, since
    the image with the lowest peak is empty otherwise.
    """
    lo, hi = search_range or _search_range(maps)
    return [
        binarize_one(m, lo, hi, step=step, min_interval=min_interval, erosion=erosion) for m in maps
    ]


_search_range = search_range  # in `binarize` the argument hides the function


def _peak(anomaly_map: np.ndarray) -> float:
    """Highest value, as a Python number."""
    peak = anomaly_map.max().item()
    if anomaly_map.dtype.kind == "f" and not math.isfinite(peak - anomaly_map.min().item()):
        raise ValueError("an anomaly map holds NaN or infinity; all values must be finite")
    return peak


def _longest_interval(counts: Sequence[int], min_interval: int) -> tuple[int, int]:
    """Count of the longest stable interval and that interval's last index; (0, _) = none.

    Among equally long intervals the first one's count wins, and of that count the last interval.
    """
    best_length, best_count, best_last = max(min_interval, 1) - 1, 0, 0
    end = 0
    for count, run in groupby(counts):
        length = len(list(run))
        end += length
        if count == 0:
            continue
        if length > best_length or (length == best_length and count == best_count):
            best_length, best_count, best_last = length, count, end - 1
    return best_count, best_last


def _erode(image: NDArray[np.uint8], erosion: int) -> NDArray[np.uint8]:
    """Grey erosion by a square of ones; what lies outside the image never lowers a value."""
    if erosion == 0:
        return image
    return cv2.erode(image, np.ones((erosion, erosion), np.uint8)).view(np.uint8)


def _ranking() -> ModuleType:
    """Compiled; the plain form where Numba is not installed, as beside a deployed model."""
    try:
        from anomalyncd.regions import ranking
    except ModuleNotFoundError as error:
        if error.name != "numba":
            raise
        from anomalyncd.regions import plain_ranking

        return plain_ranking
    return ranking
