"""How many thresholds each pixel exceeds, and the components above each of them: compiled."""

from __future__ import annotations

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

_HIGHEST = 255  # rank


def ranks(anomaly_map: np.ndarray, lo: float, hi: float, step: int) -> NDArray[np.uint8]:
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


def counts(ranks: NDArray[np.uint8], n_thresholds: int) -> NDArray[np.int64]:
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
    critical = critical[np.argsort(_HIGHEST - rank[critical], kind="stable")]
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
