"""MEBin against the official release's values, against the plain loop, and by its symmetries."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from anomalyncd import regions
from anomalyncd.regions import mebin, plain_ranking
from tests.oracles import mebin as plain

GOLDEN = Path(__file__).parents[1] / "golden"
N_MAPS = 49
SETTINGS = {
    "mebin_default": {"step": 4, "min_interval": 4, "erosion": 6},
    "mebin_no_erode_rate2": {"step": 2, "min_interval": 6, "erosion": 0},
}
INTEGERS = (np.uint8, np.uint16, np.int16, np.int32, np.int64)
FLOATS = (np.float16, np.float32, np.float64)


@pytest.fixture(scope="module")
def golden_maps() -> list[np.ndarray]:
    with np.load(GOLDEN / "mebin_default.npz") as golden:
        return [golden[f"map_{i:03d}"] for i in range(N_MAPS)]


@pytest.mark.parametrize("name", SETTINGS)
def test_equals_the_release(name: str, golden_maps: list[np.ndarray]) -> None:
    setting = SETTINGS[name]
    with np.load(GOLDEN / f"{name}.npz") as golden:
        lo, hi = mebin.search_range(iter(golden_maps))
        assert (lo, hi) == (golden["min_th"], golden["max_th"])
        results = mebin.binarize(golden_maps, **setting)
        assert len(results) == N_MAPS
        for i, (anomaly_map, result) in enumerate(zip(golden_maps, results, strict=True)):
            counts = mebin.component_counts(
                anomaly_map, lo, hi, setting["step"], setting["erosion"]
            )
            np.testing.assert_array_equal(counts, golden[f"sequence_{i:03d}"])
            assert (result.threshold, result.count) == (golden["threshold"][i], golden["count"][i])
            assert result.mask.dtype == bool
            np.testing.assert_array_equal(np.packbits(result.mask), golden[f"mask_{i:03d}"])


@pytest.mark.parametrize("dtype", [*INTEGERS[1:], *FLOATS])
def test_equals_the_release_in_every_dtype(dtype: type, golden_maps: list[np.ndarray]) -> None:
    results = mebin.binarize([anomaly_map.astype(dtype) for anomaly_map in golden_maps])
    with np.load(GOLDEN / "mebin_default.npz") as golden:
        for i, result in enumerate(results):
            assert result.count == golden["count"][i]
            assert int(result.threshold) == golden["threshold"][i]
            np.testing.assert_array_equal(np.packbits(result.mask), golden[f"mask_{i:03d}"])


@st.composite
def maps(draw: st.DrawFn, dtypes: tuple[type, ...] = INTEGERS + FLOATS) -> np.ndarray:
    """Noise in few or many steps, or blobs (noise that was enlarged), of any dtype."""
    dtype = np.dtype(draw(st.sampled_from(dtypes)))
    height, width = draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    most = draw(st.sampled_from([1, 3, 20, 100, 255]))
    coarse = draw(st.integers(1, 8))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    noise = rng.integers(0, most + 1, (height, width))
    values = np.kron(noise, np.ones((coarse, coarse), np.int64))[:height, :width]
    if dtype.kind == "f":
        unit = draw(st.sampled_from([1e-3, 1, 50]))
        return ((values + rng.random(values.shape)) * unit).astype(dtype)
    scale = {1: 1, 2: 100}.get(dtype.itemsize, 100_000)
    return (values * scale - (scale * most // 3 if dtype.kind == "i" else 0)).astype(dtype)


@settings(max_examples=300)
@given(maps(), st.data())
def test_equals_the_plain_loop(anomaly_map: np.ndarray, data: st.DataObject) -> None:
    step = data.draw(st.sampled_from([1, 2, 4, 7, 100, 255]), "step")
    min_interval = data.draw(st.integers(1, 6), "min_interval")
    erosion = data.draw(st.sampled_from([0, 1, 3, 6]), "erosion")
    low, high = anomaly_map.min().item(), anomaly_map.max().item()
    # beyond the map's own range too: pixels above hi, a map wholly below lo
    bounds = st.floats(low - 1, high + 1, width=64)
    lo, hi = sorted(data.draw(st.tuples(bounds, bounds) | st.just((low, high)), "range"))
    assume(hi == lo or hi - lo > 1e-9)  # narrower, the plain loop's division overflows

    counts = mebin.component_counts(anomaly_map, lo, hi, step, erosion)
    expected = plain.component_counts(anomaly_map, lo, hi, step, erosion)
    np.testing.assert_array_equal(counts, expected)

    options = {"step": step, "min_interval": min_interval, "erosion": erosion}
    result = mebin.binarize_one(anomaly_map, lo, hi, **options)
    mask, threshold, count = plain.binarize_one(anomaly_map, lo, hi, **options)
    assert (result.threshold, result.count) == (threshold, count)
    np.testing.assert_array_equal(result.mask, mask)


@given(
    hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=24)),
    st.integers(-1000, 1000),
    st.integers(1, 1000),
    st.sampled_from([0, 3, 6]),
)
def test_counts_do_not_depend_on_the_unit(
    levels: np.ndarray, shift: int, scale: int, erosion: int
) -> None:
    lo, hi = int(levels.min()), int(levels.max())
    counts = mebin.component_counts(levels, lo, hi, erosion=erosion)
    other = levels.astype(np.int32) * scale + shift
    moved = mebin.component_counts(other, lo * scale + shift, hi * scale + shift, erosion=erosion)
    np.testing.assert_array_equal(moved, counts)


@given(maps(), st.sampled_from([0, 1, 3]))
def test_counts_do_not_depend_on_the_orientation(anomaly_map: np.ndarray, erosion: int) -> None:
    """Of the erosions, only the odd ones are symmetric."""
    lo, hi = anomaly_map.min().item(), anomaly_map.max().item()
    counts = mebin.component_counts(anomaly_map, lo, hi, erosion=erosion)
    for turned in (anomaly_map[::-1], anomaly_map[:, ::-1], anomaly_map.T):
        np.testing.assert_array_equal(
            mebin.component_counts(turned, lo, hi, erosion=erosion), counts
        )


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_constant_category_has_no_main_element(dtype: type) -> None:
    constant = np.full((9, 7), 5, dtype)
    (result,) = mebin.binarize([constant])
    assert (result.threshold, result.count) == (255, 0)
    assert result.mask.shape == (9, 7)
    assert not result.mask.any()


def test_float_thresholds_are_not_truncated() -> None:
    anomaly_map = np.zeros((20, 20), np.float32)
    anomaly_map[5:15, 5:15] = 0.75
    result = mebin.binarize_one(anomaly_map, 0, 1)
    assert result.count == 1
    assert 0 < result.threshold < 0.75
    np.testing.assert_array_equal(result.mask, plain.erode(anomaly_map > 0.5, 6) > 0)


def test_float_maps_are_compared_in_double_precision() -> None:
    """A value just above the threshold, to which the threshold would round in float16."""
    anomaly_map = np.zeros((20, 20), np.float16)
    anomaly_map[5:15, 5:15] = 11 / 255
    result = mebin.binarize_one(anomaly_map, 0, 1, step=244, min_interval=1, erosion=0)
    assert (result.threshold, result.count) == (11 / 255, 1)
    assert result.mask.sum() == 100


def test_a_search_range_set_by_hand_finds_defects_that_the_lowest_peak_hides(
    golden_maps: list[np.ndarray],
) -> None:
    peaks = [int(m.max()) for m in golden_maps]
    lowest = int(np.argmin(peaks))
    assert mebin.binarize(golden_maps)[lowest].count == 0
    by_hand = mebin.binarize(golden_maps, search_range=(0, max(peaks)), min_interval=1)
    assert by_hand[lowest].count > 0


def test_search_range_reads_lazily_and_returns_python_numbers() -> None:
    lo, hi = mebin.search_range(np.full((2, 2), v, np.uint8) for v in (9, 3, 250))
    assert (lo, hi) == (3, 250)
    assert type(lo) is int
    assert type(mebin.search_range([np.ones((2, 2), np.float32)])[0]) is float


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(bad: float) -> None:
    anomaly_map = np.ones((3, 3), np.float32)
    anomaly_map[1, 1] = bad
    with pytest.raises(ValueError, match="NaN or infinity"):
        mebin.search_range([anomaly_map])
    with pytest.raises(ValueError, match="NaN or infinity"):
        mebin.binarize_one(anomaly_map, 0, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"lo": 2, "hi": 1}, "search range"), ({"lo": 0, "hi": 1, "step": 0}, "step")],
)
def test_invalid_settings_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mebin.binarize_one(np.ones((3, 3)), **arguments)


def test_no_maps_are_refused() -> None:
    with pytest.raises(ValueError, match="no anomaly maps"):
        mebin.search_range([])


def test_threads_agree_with_one_thread(golden_maps: list[np.ndarray]) -> None:
    alone = [mebin.binarize_one(m, 28, 255) for m in golden_maps]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda m: mebin.binarize_one(m, 28, 255), golden_maps))
    for a, b in zip(alone, together, strict=True):
        assert (a.threshold, a.count) == (b.threshold, b.count)
        np.testing.assert_array_equal(a.mask, b.mask)


@settings(max_examples=100)
@given(maps(), st.sampled_from([1, 2, 4, 7, 100, 255]), st.sampled_from([0, 1, 6]))
def test_without_numba_ranks_and_counts_are_the_same(
    anomaly_map: np.ndarray, step: int, erosion: int
) -> None:
    lo, hi = anomaly_map.min().item(), anomaly_map.max().item()
    assume(hi - lo > 1e-9)
    compiled = mebin.component_counts(anomaly_map, lo, hi, step, erosion)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "numba", None)
        patch.delitem(sys.modules, "anomalyncd.regions.ranking")
        patch.delattr(regions, "ranking")
        assert mebin._ranking() is plain_ranking
        np.testing.assert_array_equal(
            mebin.component_counts(anomaly_map, lo, hi, step, erosion), compiled
        )
