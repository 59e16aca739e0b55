"""The other binarizations of the ablation: their foreground, and that the setting is used."""

from __future__ import annotations

from fractions import Fraction

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import ndimage

from anomalyncd.config import MebinConfig
from anomalyncd.regions import mebin
from anomalyncd.regions.binarization import binarize_one

# Few levels as well as many: ties, and maps of one or two values, are where thresholds go wrong.
maps = st.integers(0, 255).flatmap(
    lambda top: arrays(np.uint8, (9, 12), elements=st.integers(0, top))
)
EIGHT = np.ones((3, 3))


def variance_between(values: NDArray, threshold: int) -> Fraction:
    """Otsu's criterion, exactly: n0 n1 (mean1 - mean0)^2, 0 where one part is empty."""
    low, high = (
        [int(v) for v in values[part]] for part in (values <= threshold, values > threshold)
    )
    if not low or not high:
        return Fraction(0)
    gap = Fraction(sum(high), len(high)) - Fraction(sum(low), len(low))
    return len(low) * len(high) * gap**2


@given(maps)
def test_otsu_separates_the_values_best_and_as_opencv(anomaly_map: NDArray[np.uint8]) -> None:
    found = binarize_one(anomaly_map, 0, 255, MebinConfig(method="otsu", erosion=0))
    best = max(variance_between(anomaly_map, threshold) for threshold in np.unique(anomaly_map))
    assert float(variance_between(anomaly_map, int(found.threshold))) == pytest.approx(float(best))
    if best:  # OpenCV takes a constant map for foreground
        expected = cv2.threshold(anomaly_map, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)[1]
        np.testing.assert_array_equal(found.mask, expected)


@given(maps, st.floats(0, 1, exclude_max=True), st.sampled_from((0, 2, 3)))
def test_fixed_is_a_share_of_full_scale(
    anomaly_map: NDArray[np.uint8], threshold: float, erosion: int
) -> None:
    config = MebinConfig(method="fixed", threshold=threshold, erosion=erosion)
    found = binarize_one(anomaly_map, 100, 200, config)  # the search range is MEBin's alone
    foreground = anomaly_map > threshold * 255
    if erosion:
        # anchored as OpenCV's even squares are; outside counts as foreground
        foreground = ndimage.minimum_filter(foreground, erosion, mode="constant", cval=1)
    np.testing.assert_array_equal(found.mask, foreground)
    assert found.count == ndimage.label(foreground, EIGHT)[1]


@pytest.mark.parametrize("method", ["mebin", "otsu"])
@pytest.mark.parametrize("level", [0, 77, 255])
def test_a_constant_map_shows_nothing(method: str, level: int) -> None:
    constant = np.full((20, 30), level, np.uint8)
    found = binarize_one(constant, level, 255, MebinConfig(method=method))
    assert (found.count, found.threshold) == (0, mebin.TOP)
    assert not found.mask.any()


@given(maps, st.integers(0, 3), st.integers(1, 9))
def test_mebin_is_mebin(anomaly_map: NDArray[np.uint8], erosion: int, step: int) -> None:
    config = MebinConfig(step=step, min_interval=2, erosion=erosion)
    found = binarize_one(anomaly_map, 5, 250, config)
    expected = mebin.binarize_one(anomaly_map, 5, 250, step=step, min_interval=2, erosion=erosion)
    np.testing.assert_array_equal(found.mask, expected.mask)
    assert (found.count, found.threshold) == (expected.count, expected.threshold)


def test_each_method_on_a_faint_and_a_strong_defect() -> None:
    """Otsu sees a defect wherever there are two levels, a fixed threshold only strong ones."""
    faint, strong = np.full((2, 60, 60), 20, np.uint8)
    faint[10:30, 10:30] = 90
    strong[10:30, 10:30] = 240
    counts = {
        method: [
            binarize_one(m, 20, 240, MebinConfig(method=method)).count for m in (faint, strong)
        ]
        for method in ("mebin", "fixed", "otsu")
    }
    assert counts == {"mebin": [1, 1], "fixed": [0, 1], "otsu": [1, 1]}
