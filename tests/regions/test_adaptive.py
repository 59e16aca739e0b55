"""The adaptive mask: geometry by hand, what has no influence, and the border in the image."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from anomalyncd.config import MebinConfig
from anomalyncd.regions.adaptive import binarize_one
from anomalyncd.regions.binarization import binarize_one as binarize_by
from anomalyncd.regions.refinement import refine
from tests.regions.test_gate import pile


def overlap(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float((a & b).sum() / (a | b).sum())


def square(side: int, at: slice) -> NDArray[np.bool_]:
    mask = np.zeros((side, side), bool)
    mask[at, at] = True
    return mask


def photograph(truth: NDArray[np.bool_], noise: float = 6) -> NDArray[np.uint8]:
    """A red square on grey, both with noise."""
    image = np.where(truth[..., None], (190, 60, 50), (120, 120, 120))
    rng = np.random.default_rng(0)
    return (image + rng.normal(scale=noise, size=image.shape)).clip(0, 255).astype(np.uint8)


def soft_map(truth: NDArray[np.bool_], sigma: float = 6) -> NDArray[np.uint8]:
    blurred = cv2.GaussianBlur(truth.astype(float), (0, 0), sigma)
    return (20 + 180 * blurred / blurred.max()).astype(np.uint8)


def test_the_mask_is_what_lies_above_a_share_of_the_height() -> None:
    levels = np.full((40, 40), 100, np.uint8)  # heights are above the median
    levels[10:20, 10:20], levels[12:18, 12:18], levels[14:16, 14:16] = 164, 166, 200
    found = binarize_one(levels, gate=150)
    np.testing.assert_array_equal(found.mask, levels >= 166)
    assert (found.count, found.threshold) == (1, 165)


def test_the_height_rises_to_the_gate_but_leaves_a_mask() -> None:
    levels = np.full((40, 40), 100, np.uint8)
    levels[10:20, 10:20], levels[12:18, 12:18], levels[14:16, 14:16] = 168, 174, 200
    assert binarize_one(levels, gate=160).threshold == 165
    assert binarize_one(levels, gate=170).threshold == 170
    assert binarize_one(levels, gate=190).threshold == 175
    np.testing.assert_array_equal(binarize_one(levels, gate=170).mask, levels >= 174)


def test_a_component_that_does_not_reach_the_gate_is_left_out() -> None:
    levels = np.zeros((40, 40), np.uint8)
    levels[5:9, 5:9], levels[5:9, 25:29], levels[25:29, 5:9] = 100, 90, 70
    assert binarize_one(levels, gate=80).count == 2
    assert binarize_one(levels, gate=60).count == 3
    assert binarize_one(levels, gate=99).count == 1
    assert binarize_one(levels, gate=100).count == 0
    assert not binarize_one(levels, gate=100).mask.any()


@pytest.mark.parametrize("level", [0, 77, 255])
def test_a_constant_map_shows_nothing(level: int) -> None:
    constant = np.full((20, 30), level, np.uint8)
    config = MebinConfig(method="adaptive", gate=0)
    found = binarize_by(constant, 0, 255, config)
    assert found.count == 0
    assert not found.mask.any()


def test_the_method_needs_its_gate() -> None:
    with pytest.raises(ValueError, match=r"mebin\.gate is missing"):
        binarize_by(np.zeros((9, 9), np.uint8), 0, 255, MebinConfig(method="adaptive"))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 19), st.floats(0.01, 100), st.floats(-1000, 1000))
def test_scaling_and_shifting_the_levels_leaves_the_mask(
    which: int, scale: float, shift: float
) -> None:
    one, gate = pile(10, 10)[0][which].astype(float), 70.3
    expected = binarize_one(one, gate)
    found = binarize_one(one * scale + shift, gate * scale + shift)
    assert found.count == expected.count
    assert (found.mask != expected.mask).mean() < 1e-3  # a pixel at the threshold may round over


def test_the_border_moves_to_the_edge_in_the_image() -> None:
    truth = square(96, slice(40, 56))
    image, scores = photograph(truth), soft_map(truth)
    plain = binarize_one(scores, 50)
    found = binarize_one(scores, 50, np.asarray(cv2.resize(image, (192, 192)), np.uint8))
    assert overlap(plain.mask, truth) < 0.75
    assert overlap(found.mask, truth) > 0.9
    assert found.threshold == plain.threshold


def test_the_same_image_gives_the_same_mask_whatever_was_refined_before() -> None:
    truth = square(96, slice(40, 56))
    scores = soft_map(truth)
    image = photograph(truth, noise=60)
    first = binarize_one(scores, 50, image)
    binarize_one(scores, 50, photograph(truth, noise=20))
    np.testing.assert_array_equal(binarize_one(scores, 50, image).mask, first.mask)


CORE, MASK, EXTENT = (square(64, at) for at in (slice(30, 34), slice(24, 40), slice(18, 46)))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 120))
def test_a_refined_mask_keeps_to_what_the_map_leaves_open(seed: int, noise: float) -> None:
    rng = np.random.default_rng(seed)
    image = rng.normal(128, noise, (64, 64, 3)).clip(0, 255).astype(np.uint8)
    found = refine(image, CORE, MASK, EXTENT)
    assert not (CORE & ~found).any()
    assert not (found & ~EXTENT).any()
    assert 0.3 <= found.sum() / MASK.sum() <= 2


@pytest.mark.parametrize("side", [4, 26])
def test_a_cut_that_follows_something_else_is_dropped(side: int) -> None:
    """An object much smaller, or much larger, than what the map shows."""
    other = square(64, slice(32 - side // 2, 32 + side // 2))
    found = refine(photograph(other, noise=2), CORE, MASK, EXTENT)
    np.testing.assert_array_equal(found, MASK)


@pytest.mark.parametrize(
    ("core", "extent"),
    [(MASK, MASK), (CORE, np.ones_like(CORE)), (CORE, square(64, slice(1, 64)))],
)
def test_without_a_choice_or_a_background_the_mask_stays(
    core: NDArray[np.bool_], extent: NDArray[np.bool_]
) -> None:
    image = photograph(square(64, slice(28, 36)))
    found = refine(image, core, MASK, extent)
    if extent.sum() < 64 * 63:
        np.testing.assert_array_equal(found, MASK)
    assert found.any()
