"""Batched MEBin against the official release's values and against `anomalyncd.regions.mebin`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anomalyncd.regions import mebin, mebin_torch

GOLDEN = Path(__file__).parents[1] / "golden"
N_MAPS = 49
SETTINGS = {
    "mebin_default": {"step": 4, "min_interval": 4, "erosion": 6},
    "mebin_no_erode_rate2": {"step": 2, "min_interval": 6, "erosion": 0},
}
INTEGERS = (np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32, np.int64)
FLOATS = (np.float16, np.float32, np.float64)
DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
    ),
]


@pytest.fixture(scope="module")
def golden_maps() -> list[np.ndarray]:
    with np.load(GOLDEN / "mebin_default.npz") as golden:
        return [golden[f"map_{i:03d}"] for i in range(N_MAPS)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", SETTINGS)
def test_equals_the_release(name: str, device: str, golden_maps: list[np.ndarray]) -> None:
    setting = SETTINGS[name]
    with np.load(GOLDEN / f"{name}.npz") as golden:
        lo, hi = int(golden["min_th"]), int(golden["max_th"])
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for i, anomaly_map in enumerate(golden_maps):
            by_shape.setdefault(anomaly_map.shape, []).append(i)
        for indices in by_shape.values():
            maps = torch.from_numpy(np.stack([golden_maps[i] for i in indices])).to(device)
            counts = mebin_torch.component_counts(maps, lo, hi, setting["step"], setting["erosion"])
            results = mebin_torch.binarize(maps, lo, hi, **setting)
            assert {t.device.type for t in (counts, *results)} == {device}
            np.testing.assert_array_equal(results.thresholds.cpu(), golden["threshold"][indices])
            np.testing.assert_array_equal(results.counts.cpu(), golden["count"][indices])
            for i, sequence, mask in zip(indices, counts.cpu(), results.masks.cpu(), strict=True):
                np.testing.assert_array_equal(sequence, golden[f"sequence_{i:03d}"])
                np.testing.assert_array_equal(np.packbits(mask.numpy()), golden[f"mask_{i:03d}"])


@st.composite
def batches(draw: st.DrawFn) -> np.ndarray:
    """Noise in few or many steps, or blobs (noise that was enlarged), of any dtype."""
    dtype = np.dtype(draw(st.sampled_from(INTEGERS + FLOATS)))
    n, height, width = draw(st.tuples(st.integers(1, 4), st.integers(1, 40), st.integers(1, 40)))
    most = draw(st.sampled_from([0, 1, 3, 20, 127]))
    coarse = draw(st.integers(1, 8))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    noise = rng.integers(0, most + 1, (n, height, width))
    values = np.kron(noise, np.ones((1, coarse, coarse), np.int64))[:, :height, :width]
    if dtype.kind == "f":
        unit = draw(st.sampled_from([1e-3, 1, 50]))
        return ((values + rng.random(values.shape)) * unit).astype(dtype)
    scale = {1: 1, 2: 200}.get(dtype.itemsize, 100_000)
    return (values * scale - (scale * most // 3 if dtype.kind == "i" else 0)).astype(dtype)


def assert_equals_mebin(
    maps: np.ndarray, lo: float, hi: float, device: str, **options: int
) -> None:
    batch = torch.from_numpy(maps).to(device)
    options = {"step": 4, "min_interval": 4, "erosion": 6} | options
    counts = mebin_torch.component_counts(batch, lo, hi, options["step"], options["erosion"])
    results = mebin_torch.binarize(batch, lo, hi, **options)
    assert (counts.dtype, results.counts.dtype) == (torch.int64, torch.int64)
    assert (results.masks.dtype, results.masks.shape) == (torch.bool, maps.shape)
    is_float = maps.dtype.kind == "f"
    assert results.thresholds.dtype == (torch.float64 if is_float else torch.int64)
    for i, anomaly_map in enumerate(maps):
        np.testing.assert_array_equal(
            counts[i].cpu(),
            mebin.component_counts(anomaly_map, lo, hi, options["step"], options["erosion"]),
        )
        expected = mebin.binarize_one(anomaly_map, lo, hi, **options)
        found = (results.thresholds[i].item(), results.counts[i].item())
        assert found == (expected.threshold, expected.count)
        np.testing.assert_array_equal(results.masks[i].cpu(), expected.mask)


@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=120)
@given(maps=batches(), data=st.data())
def test_equals_mebin(device: str, maps: np.ndarray, data: st.DataObject) -> None:
    options = {
        "step": data.draw(st.sampled_from([1, 2, 4, 7, 100, 255]), "step"),
        "min_interval": data.draw(st.integers(0, 6), "min_interval"),
        "erosion": data.draw(st.sampled_from([0, 1, 2, 3, 6]), "erosion"),
    }
    # beyond the maps' own range too: pixels above hi, maps wholly below lo, hi == lo
    bounds = st.floats(maps.min().item() - 1, maps.max().item() + 1, width=64)
    own = mebin.search_range(maps)
    lo, hi = sorted(data.draw(st.tuples(bounds, bounds) | st.just(own), "range"))
    assert mebin_torch.search_range(torch.from_numpy(maps).to(device)) == own
    assert_equals_mebin(maps, lo, hi, device, **options)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_equals_mebin_on_large_maps(dtype: type, device: str) -> None:
    """Long climbs, wide plateaus and many Borůvka rounds: a winding path, a ramp and noise."""
    side = 150
    y, x = np.mgrid[:side, :side]
    path = np.where((y % 2 == 0) | (x == np.where(y % 4 == 1, side - 1, 0)), 200, 10)
    noise = np.random.default_rng(0).integers(0, 256, (2, side, side))
    maps = np.stack([path, x + y // 2, *noise]).astype(dtype)
    for erosion in (0, 6):
        assert_equals_mebin(maps, 0, 210, device, erosion=erosion, min_interval=1)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("pixels", [1, 1500])
def test_a_map_does_not_depend_on_the_batch(
    pixels: int, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(1)
    maps = torch.from_numpy(rng.integers(0, 256, (7, 20, 30)).astype(np.float32)).to(device)
    options = {"erosion": 2, "min_interval": 1}
    together = mebin_torch.binarize(maps, 30, 255, **options)
    assert together.masks.any()
    alone = [mebin_torch.binarize(m[None], 30, 255, **options) for m in maps]
    monkeypatch.setitem(mebin_torch.CHUNK, device, pixels)
    in_chunks = mebin_torch.binarize(maps, 30, 255, **options)
    for whole, parts, chunks in zip(together, zip(*alone, strict=True), in_chunks, strict=True):
        assert torch.equal(whole, torch.cat(parts))
        assert torch.equal(whole, chunks)


def test_the_input_is_not_changed() -> None:
    maps = torch.rand(2, 9, 9, dtype=torch.float64)
    before = maps.clone()
    mebin_torch.binarize(maps, 0.2, 0.9)
    assert torch.equal(maps, before)


def test_parts_of_larger_tensors_are_accepted() -> None:
    """Maps as a model's output gives them: one channel of many, not contiguous."""
    rng = np.random.default_rng(2)
    output = torch.from_numpy(rng.integers(0, 256, (3, 2, 40, 31), dtype=np.uint8))
    maps = output[:, 1].transpose(1, 2)
    assert not maps.is_contiguous()
    found = mebin_torch.binarize(maps, 40, 250, erosion=2)
    expected = mebin_torch.binarize(maps.contiguous(), 40, 250, erosion=2)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_search_range_gives_python_numbers() -> None:
    maps = torch.tensor([9, 3, 250], dtype=torch.uint8)[:, None, None].expand(3, 2, 2)
    lo, hi = mebin_torch.search_range(maps)
    assert (lo, hi) == (3, 250)
    assert type(lo) is int
    assert type(mebin_torch.search_range(maps.float())[0]) is float


def test_an_empty_batch_stays_empty() -> None:
    masks, thresholds, counts = mebin_torch.binarize(torch.zeros(0, 5, 6), 0, 1)
    assert masks.shape == (0, 5, 6)
    assert len(thresholds) == len(counts) == 0
    with pytest.raises(ValueError, match="no anomaly maps"):
        mebin_torch.search_range(torch.zeros(0, 5, 6))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(bad: float) -> None:
    maps = torch.ones(3, 3, 3)
    maps[1, 1, 1] = bad
    with pytest.raises(ValueError, match="NaN or infinity"):
        mebin_torch.search_range(maps)
    with pytest.raises(ValueError, match="NaN or infinity"):
        mebin_torch.binarize(maps, 0, 2)


@pytest.mark.parametrize(
    ("shape", "arguments", "message"),
    [
        ((1, 3, 3), {"lo": 2, "hi": 1}, "search range"),
        ((1, 3, 3), {"lo": 0, "hi": np.nan}, "search range"),
        ((1, 3, 3), {"lo": 0, "hi": 1, "step": 0}, "step"),
        ((1, 1, 3, 3), {"lo": 0, "hi": 1}, r"\(1, 1, 3, 3\); expected \(n, h, w\)"),
    ],
)
def test_invalid_settings_are_refused(
    shape: tuple[int, ...], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        mebin_torch.binarize(torch.ones(shape), **arguments)
