"""Which images look defective at all: one level for a pile of maps, found without labels.

A defect-free image has a highest spot too, so the spot's level alone says little. Two things do:

- The levels of all images' spots. Those of defect-free images lie together at the low end, those
  of defects spread above. A mixture of two log-normal distributions separates them, and the gate
  is where an image is as likely the one as the other.
- What remains of each image without its main spot. That is background in a defective image too,
  so it holds where no image is defect-free, or where the mixture has nothing to separate. The
  gate lies between its median and two deviations above; but one at most where even the images
  below the gate have spots that stand out from what remains of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

_SPOT = 0.002  # share of an image's pixels whose mean is its level: noise has no say, a defect has
_HALO = 0.03  # what is removed around the main spot, as a share of the map's longer side
_STARTS = (0.2, 0.4, 0.6, 0.8)  # shares of low images that the mixture is fitted from
_MAX_STEPS = 500
_HIGHEST = 700.0  # log level that math.exp can take; two components alike cross nowhere near
_SHARPEST = 0.005  # least deviation of log levels, so that no component shrinks to one image


@dataclass(frozen=True)
class _Normal:
    """A normal distribution of log levels."""

    mean: float
    deviation: float

    @classmethod
    def of(cls, values: NDArray[np.float64], weights: NDArray[np.float64] | None = None) -> _Normal:
        mean = float(np.average(values, weights=weights))
        variance = float(np.average((values - mean) ** 2, weights=weights))
        return cls(mean, max(math.sqrt(variance), _SHARPEST))

    def log_density(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        return -0.5 * ((values - self.mean) / self.deviation) ** 2 - math.log(self.deviation)


@dataclass(frozen=True)
class _Mixture:
    log_likelihood: float
    weight: float  # of the lower component, in (0, 1)
    low: _Normal
    high: _Normal  # no narrower than the lower one

    def crossing(self, probability: float) -> float:
        """Log level above which a value is of the lower component with less than `probability`."""
        low, high = self.low, self.high
        # log of the ratio of both components, as a polynomial of the log level
        square = 0.5 / high.deviation**2 - 0.5 / low.deviation**2
        linear = low.mean / low.deviation**2 - high.mean / high.deviation**2
        constant = 0.5 * (high.mean / high.deviation) ** 2 - 0.5 * (low.mean / low.deviation) ** 2
        constant += math.log(high.deviation / low.deviation)
        constant += math.log(self.weight / (1 - self.weight))
        constant -= math.log(probability / (1 - probability))
        roots = np.roots([square, linear, constant])
        real = roots.real[np.abs(roots.imag) < 1e-9]
        return min(float(real.max()), _HIGHEST) if len(real) else -math.inf


def spot_level(anomaly_map: NDArray) -> float:
    """Mean of the highest 0.2 % of pixels: how anomalous an image is at its worst spot.

    Example:
        >>> spot_level(np.arange(1000).reshape(20, 50))
        998.5
    """
    values = anomaly_map.ravel()
    n = max(round(_SPOT * values.size), 1)
    return float(np.partition(values, values.size - n)[values.size - n :].mean())


def find_gate(maps: Iterable[NDArray], normal_probability: float = 0.5) -> float:
    """The spot level above which an image is taken for defective.

    Reads the maps once, one at a time; their order has no influence. Where all levels are scaled
    or shifted, the gate is too.

    Args:
        maps: (h, w) each, of one category; integers or floats.
        normal_probability: images are below the gate that are defect-free with more than this
            probability; above 0 and below 1.

    Raises:
        ValueError: there is no map.

    Example:
        >>> maps = np.random.default_rng(0).uniform(5, 10, (20, 30, 30))
        >>> maps[12:, 9:15, 9:15] += 50  # eight with a defect
        >>> 9.9 < find_gate(maps) < 55
        True
    """
    spots, rests, floor = [], [], math.inf
    for anomaly_map in maps:
        spots.append(spot_level(anomaly_map))
        rests.append(spot_level(_without_main_spot(anomaly_map)))
        floor = min(floor, anomaly_map.min().item())
    if not spots:
        raise ValueError("no anomaly maps: the gate needs at least one")
    spot, rest = np.array(spots), np.array(rests)
    mixture = _fit_mixture(_log_levels(np.sort(spot) - floor))
    crossing = mixture.crossing(normal_probability) if mixture else -math.inf
    median = float(np.median(rest))
    # from the lower half, since weaker defects raise the upper one
    deviation = 1.4826 * float(np.median(median - rest[rest <= median]))
    gate = median + deviation
    if mixture:
        gate = min(max(math.exp(crossing) + floor, median), median + 2 * deviation)
    stands_out = (spot - rest)[spot <= gate]
    if len(stands_out) and float(np.median(stands_out)) > deviation:
        return min(gate, median + deviation)
    return gate


def centre_scores(
    scores: NDArray[np.float64], lo: float, hi: float, gate: float
) -> NDArray[np.float64]:
    """Move scores so that the gate is at 0.5; linear below and above it.

    Below 0.5 is where the pseudo-label correction takes a region for normal.

    Args:
        scores: (n,), 0 at the level `lo` and 1 at `hi`.
        lo: lower end of the search range.
        hi: upper end of it.
        gate: as a level.

    Example:
        >>> centre_scores(np.array([0, 0.1, 0.2, 0.6, 1]), lo=50, hi=150, gate=70)
        array([0.  , 0.25, 0.5 , 0.75, 1.  ])
    """
    share = (gate - lo) / (hi - lo) if hi > lo else 0.5
    # Scores on the other side are cut off: a tiny share would overflow on them.
    low = np.minimum(scores, share)
    below = 0.5 * low / share if share > 0 else np.full_like(scores, 0.5)
    above = 0.5 + 0.5 * (scores - share) / (1 - share) if share < 1 else np.full_like(scores, 0.5)
    return np.where(scores < share, below, above)


def _without_main_spot(anomaly_map: NDArray) -> NDArray:
    """The map, with its highest component and a halo around it brought down to the median."""
    background = np.median(anomaly_map)
    peak = anomaly_map.max()
    above = (anomaly_map > (background + float(peak)) / 2).astype(np.uint8)
    labels = cv2.connectedComponents(above, connectivity=8)[1]
    spot = labels == labels[np.unravel_index(anomaly_map.argmax(), anomaly_map.shape)]
    side = 2 * round(_HALO * max(anomaly_map.shape) / 2) + 1
    halo = cv2.dilate(spot.astype(np.uint8), np.ones((side, side), np.uint8))
    return np.where(halo > 0, background, anomaly_map)


def _log_levels(levels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of levels above the lowest pixel; constant maps, which are at 0, come out very low."""
    highest = float(levels.max())
    return np.log(np.maximum(levels, highest * 1e-3)) if highest > 0 else np.zeros_like(levels)


def _fit_mixture(values: NDArray[np.float64]) -> _Mixture | None:
    """Two distributions of log levels, the lower one no wider (EM); None: not two kinds.

    Args:
        values: (n,) ascending log levels.
    """
    found = [_from_start(values, share) for share in _STARTS]
    fits = [fit for fit in found if fit is not None]
    return max(fits, key=lambda fit: fit.log_likelihood) if fits else None


def _from_start(values: NDArray[np.float64], share: float) -> _Mixture | None:
    is_low = np.where(values <= np.quantile(values, share), 0.99, 0.01)
    before = -math.inf
    for _ in range(_MAX_STEPS):
        weight = float(is_low.mean())
        low = _Normal.of(values, is_low)
        high = _Normal.of(values, 1 - is_low)
        high = _Normal(high.mean, max(high.deviation, low.deviation))
        as_low = math.log(weight) + low.log_density(values)
        as_high = math.log(1 - weight) + high.log_density(values)
        both = np.logaddexp(as_low, as_high)
        likelihood = float(both.sum())
        is_low = np.clip(np.exp(as_low - both), 1e-6, 1 - 1e-6)
        if likelihood - before < 1e-6:
            break
        before = likelihood
    return _Mixture(likelihood, weight, low, high) if low.mean < high.mean else None
