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

import cv2
import numpy as np
from numba import njit
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
    ranks = _erode(_ranks(anomaly_map, lo, hi, step), erosion)
    return _count(ranks, n_thresholds)


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


def _ranks(anomaly_map: np.ndarray, lo: float, hi: float, step: int) -> NDArray[np.uint8]:
    """(h, w), number of thresholds that each pixel's normalised value exceeds (at most 255)."""
    if anomaly_map.dtype == np.uint8:
        table = _rank_values(np.arange(256, dtype=np.uint8), float(lo), float(hi), step)
        return cv2.LUT(anomaly_map, table).view(np.uint8)
    if anomaly_map.dtype not in (np.uint16, np.float32):  # one compiled version serves the rest
        anomaly_map = anomaly_map.astype(np.float64)
    values = np.ascontiguousarray(anomaly_map).ravel()
    return _rank_values(values, float(lo), float(hi), step).reshape(anomaly_map.shape)


@njit(nogil=True, cache=True, error_model="numpy")
def _rank_values(values, lo, hi, step):  # type: ignore[no-untyped-def]
    ranks = np.empty(values.size, np.uint8)
    n_thresholds = (254 + step) // step
    for i in range(values.size):
        value = np.float64(values[i])
        normalised = (value - lo) / (hi - lo) * 255 if value >= lo else 0.0
        # thresholds are 255 - k·step, so the first one exceeded has about this k …
        k = min(max((255.0 - normalised) / step, 0.0), float(n_thresholds))
        first = np.int64(k)
        # … and float rounding can put it one off on either side
        if normalised > 255 - (first - 1) * step:
            first -= 1
        elif not normalised > 255 - first * step:
            first += 1
        ranks[i] = n_thresholds - min(max(first, 0), n_thresholds)
    return ranks


def _count(ranks: NDArray[np.uint8], n_thresholds: int) -> NDArray[np.int64]:
    """(n_thresholds,), components of {rank ≥ n}, {rank ≥ n - 1}, … {rank ≥ 1}.

    Let the pixels in one by one, from high rank to low and in raster order within a rank. Most
    join exactly one component and change no count. A peak (no neighbour is in yet) adds one; a
    saddle (those that are in form several groups around it) may merge some. Only these are
    visited; which components meet at a saddle is found by climbing from it to the peaks.
    """
    x, y, width, height = cv2.boundingRect(ranks)
    if width == 0:
        return np.zeros(n_thresholds, np.int64)
    ranks = ranks[y : y + height, x : x + width]
    padded = cv2.copyMakeBorder(ranks, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    is_critical, uphill = _critical_points(padded)
    critical = np.flatnonzero(is_critical)
    rank = padded.ravel()
    critical = critical[np.argsort(TOP - rank[critical], kind="stable")]
    changes = _count_changes(critical, rank, uphill.ravel(), width + 2)
    return np.cumsum(changes[n_thresholds:0:-1])


@njit(nogil=True, cache=True)
def _critical_points(padded):  # type: ignore[no-untyped-def]
    """Peaks and saddles, and the steepest way up from every pixel. No branches: it vectorises.

    Args:
        padded: (h, w) uint8, ranks with a border of zeros.

    Returns:
        (h, w) bool, peak or saddle of rank above 0; (h, w) uint8, the highest of the 3 x 3 pixels
        around (the first of equals) as an index in raster order, 4 = the pixel itself.
    """
    height, width = padded.shape
    is_critical = np.zeros((height, width), np.bool_)
    uphill = np.empty((height, width), np.uint8)
    for y in range(1, height - 1):
        for x in range(1, width - 1):
            rank = padded[y, x]
            # neighbours let in before this pixel: the higher ones, and the equal earlier ones
            nw = padded[y - 1, x - 1] >= rank
            n = padded[y - 1, x] >= rank
            ne = padded[y - 1, x + 1] >= rank
            e = padded[y, x + 1] > rank
            se = padded[y + 1, x + 1] > rank
            s = padded[y + 1, x] > rank
            sw = padded[y + 1, x - 1] > rank
            w = padded[y, x - 1] >= rank
            # going round, gaps at n, e, s, w: two or more of them separate groups
            gap_n = (nw | w) & (not n)
            gap_e = (ne | n) & (not e)
            gap_s = (se | e) & (not s)
            gap_w = (sw | s) & (not w)
            is_saddle = (gap_n & gap_e) | (gap_s & gap_w) | ((gap_n | gap_e) & (gap_s | gap_w))
            is_peak = not (nw | n | ne | e | se | s | sw | w)
            is_critical[y, x] = (rank > 0) & (is_saddle | is_peak)
        for x in range(1, width - 1):
            highest, place = padded[y - 1, x - 1], np.uint8(0)
            for i in range(1, 9):
                rank = padded[y - 1 + i // 3, x - 1 + i % 3]
                place = np.uint8(i) if rank > highest else place
                highest = max(rank, highest)
            uphill[y, x] = place
    return is_critical, uphill


@njit(nogil=True, cache=True)
def _count_changes(critical, rank, uphill, width):  # type: ignore[no-untyped-def]
    """Components gained less components merged at each rank.

    Args:
        critical: (n,) flat positions of peaks and saddles, in the order they are let in.
        rank: (h * w,) padded ranks.
        uphill: (h * w,) as `_critical_points` gives it.
        width: w.

    Returns:
        (256,) int64.
    """
    around = np.array([-width - 1, -width, -width + 1, -1, 0, 1, width - 1, width, width + 1])
    ring = around[np.array([0, 1, 2, 5, 8, 7, 6, 3])]
    # towards the peak that stands for the component; 0, a border pixel, = not climbed yet
    parent = np.zeros(rank.size, np.int32)
    changes = np.zeros(256, np.int64)
    for pixel in critical:
        peak = _find_peak(parent, uphill, around, pixel)
        if peak == pixel:
            changes[rank[pixel]] += 1
            continue
        for i in range(8):
            # one neighbour of each group will do: the last one going round
            if _is_before(rank, pixel + ring[i], pixel) and not (
                _is_before(rank, pixel + ring[(i + 1) % 8], pixel)
            ):
                other = _find_peak(parent, uphill, around, pixel + ring[i])
                if other != peak:
                    parent[other] = peak
                    changes[rank[pixel]] -= 1
    return changes


@njit(nogil=True, cache=True, inline="always")
def _is_before(rank, a, b):  # type: ignore[no-untyped-def]
    """Whether pixel a is let in before pixel b."""
    return rank[a] > rank[b] or (rank[a] == rank[b] and a < b)


@njit(nogil=True, cache=True)
def _find_peak(parent, uphill, around, pixel):  # type: ignore[no-untyped-def]
    """Peak that stands for the pixel's component; shortens the path walked to it."""
    peak = np.int64(pixel)
    while True:
        up = np.int64(parent[peak])
        if up == 0:
            up = peak + around[uphill[peak]]
            parent[peak] = up
        if up == peak:
            break
        peak = up
    while pixel != peak:
        up = np.int64(parent[pixel])
        parent[pixel] = peak
        pixel = up
    return peak
