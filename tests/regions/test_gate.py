"""The gate of a pile: what passes it, what it depends on, and what it must not depend on."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from anomalyncd.regions import mebin
from anomalyncd.regions.gate import centre_scores, find_gate, spot_level


@cache
def pile(
    n_good: int, n_defective: int, weakest: float = 30
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Soft noise, on some with a spot whose height varies; (n, 64, 64) maps, (n,) defective."""
    rng = np.random.default_rng(0)
    n = n_good + n_defective
    noise = np.stack([cv2.GaussianBlur(rng.normal(size=(64, 64)), (0, 0), 3) for _ in range(n)])
    levels = 40 + 10 * noise / noise.std() * rng.uniform(0.8, 1.2, (n, 1, 1))
    rows, columns = np.mgrid[:64, :64]
    for one in levels[n_good:]:
        y, x = rng.integers(12, 52, 2)
        distance = (rows - y) ** 2 + (columns - x) ** 2
        one += rng.uniform(weakest, 140) * np.exp(-distance / (2 * rng.uniform(2, 5) ** 2))
    return levels.clip(0, 255).astype(np.uint8), np.arange(n) >= n_good


def passing(maps: NDArray[np.uint8], gate: float) -> NDArray[np.bool_]:
    return np.array([spot_level(one) > gate for one in maps])


def test_a_spot_is_the_mean_of_the_highest_pixels() -> None:
    spots = np.zeros((50, 40), np.uint8)
    spots[3, 3:7] = 10, 20, 30, 40  # 0.2 % of 2,000 are 4 pixels
    spots[9, 9] = 5
    assert spot_level(spots) == 25
    assert spot_level(np.full((3, 3), 7.5)) == 7.5  # one pixel at least


@pytest.mark.parametrize(("n_good", "n_defective"), [(120, 120), (60, 180), (150, 15)])
def test_false_alarms_fall_by_two_fifths_and_misses_hardly_rise(
    n_good: int, n_defective: int
) -> None:
    maps, defective = pile(n_good, n_defective)
    passes = passing(maps, find_gate(maps))
    lo, hi = mebin.search_range(maps)
    published = np.array([mebin.binarize_one(one, lo, hi, erosion=2).count > 0 for one in maps])
    assert published[~defective].mean() >= 0.25, "else there is little to gain"
    assert passes[~defective].mean() <= 0.6 * published[~defective].mean()
    assert passes[defective].mean() >= published[defective].mean() - 0.05


def test_where_every_image_is_defective_all_pass() -> None:
    maps, _ = pile(0, 40, weakest=50)
    gate = find_gate(maps)
    assert passing(maps, gate).mean() >= 0.97
    # the published range leaves out at least the image of the lowest peak
    assert gate < mebin.search_range(maps)[0]


def test_the_surer_an_image_must_be_defect_free_the_lower_the_gate() -> None:
    maps, _ = pile(40, 40)
    gates = [find_gate(maps, chance) for chance in (0.01, 0.3, 0.5, 0.7, 0.99)]
    assert gates == sorted(gates, reverse=True)
    assert gates[0] > gates[-1]


@settings(max_examples=10, deadline=None)
@given(st.randoms(use_true_random=False))
def test_the_order_of_images_has_no_influence(random: object) -> None:
    maps, _ = pile(12, 12)
    order = list(range(len(maps)))
    random.shuffle(order)  # type: ignore[attr-defined]
    assert find_gate(maps[order]) == find_gate(maps)


@settings(max_examples=20, deadline=None)
@given(st.floats(0.01, 100), st.floats(-1000, 1000))
def test_the_gate_scales_and_shifts_with_the_maps(scale: float, shift: float) -> None:
    maps, _ = pile(12, 12)
    moved = find_gate(maps * scale + shift)
    expected = find_gate(maps.astype(float)) * scale + shift
    assert moved == pytest.approx(expected, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("level", [0, 9])
@pytest.mark.parametrize("n", [1, 3])
def test_nothing_passes_where_no_map_shows_anything(level: int, n: int) -> None:
    maps = np.full((n, 20, 30), level, np.uint8)
    assert not passing(maps, find_gate(maps)).any()


def test_a_pile_of_truth_masks_has_a_gate() -> None:
    """Maps of two levels: both components of their spots are as narrow as they may be."""
    maps = np.zeros((60, 40, 40), np.uint8)
    maps[:53, 5:15, 5:15] = 255
    gate = find_gate(maps)
    assert np.isfinite(gate)
    assert not passing(maps[53:], gate).any()


@example(0, 0, 5e-324)  # a gate hardly above the range
@given(st.floats(0, 255), st.floats(0, 255), st.floats(0, 255))
def test_scores_rise_through_one_half_at_the_gate(lo: float, hi: float, gate: float) -> None:
    lo, hi = min(lo, hi), max(lo, hi) + 1
    scores = np.linspace(0, 1, 21)
    centred = centre_scores(scores, lo, hi, gate)
    assert (np.diff(centred) >= 0).all()
    levels = lo + scores * (hi - lo)
    assert (centred[levels > gate + 1e-6] >= 0.5).all()
    assert (centred[levels < gate - 1e-6] <= 0.5).all()
    if lo + 1 < gate < hi - 1:
        assert centred[[0, -1]].tolist() == [0, 1]


def test_no_maps_are_refused() -> None:
    with pytest.raises(ValueError, match="no anomaly maps"):
        find_gate([])
