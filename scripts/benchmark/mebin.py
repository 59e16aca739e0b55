"""Main element binarization against the release's loop, on arrays and on tensors."""

from __future__ import annotations

import argparse

import numpy as np
import torch

from anomalyncd.regions import mebin_torch
from anomalyncd.regions.mebin import binarize_one, search_range
from scripts.benchmark.harness import Row, alternate, benchmark
from scripts.benchmark.inputs import category_maps, map_sides, some_resized
from tests.oracles.mebin import binarize_one as plain_binarize_one


@benchmark("mebin", one_core=True)
def bench_mebin(options: argparse.Namespace) -> list[Row]:
    """One map binarized: 64 thresholds at once, against one after the other."""
    rows = []
    category, source = category_maps(options)
    lo, hi = search_range(category)
    for side, runs in map_sides(options):
        maps = some_resized(category, side)

        def ours(maps: list[np.ndarray] = maps) -> None:
            for anomaly_map in maps:
                binarize_one(anomaly_map, lo, hi)

        def plain(maps: list[np.ndarray] = maps) -> None:
            for anomaly_map in maps:
                plain_binarize_one(anomaly_map, lo, hi)

        fast, slow = (total / len(maps) for total in alternate(ours, plain, runs))
        rows.append(Row(f"mebin {side} x {side}", source, fast, slow, slow / fast))
    return rows


@benchmark("mebin_torch", one_core=True)
def bench_mebin_torch(options: argparse.Namespace) -> list[Row]:
    """One map of a batch binarized by torch, against the plain loop and against `mebin`."""
    rows = []
    category, source = category_maps(options)
    lo, hi = search_range(category)
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    for side, runs in map_sides(options):
        maps = some_resized(category, side)

        def plain(maps: list[np.ndarray] = maps) -> None:
            for anomaly_map in maps:
                plain_binarize_one(anomaly_map, lo, hi)

        def fast_plain(maps: list[np.ndarray] = maps) -> None:
            for anomaly_map in maps:
                binarize_one(anomaly_map, lo, hi)

        for device in devices:
            # a GPU is measured with the many maps that it is meant for
            copies = 1 if device == "cpu" else 16
            batch = torch.from_numpy(np.stack(maps)).to(device).repeat(copies, 1, 1)

            def ours(batch: torch.Tensor = batch) -> None:
                mebin_torch.binarize(batch, lo, hi).counts.cpu()  # waits for the device

            for against, other in (("plain loop", plain), ("mebin", fast_plain)):
                total, other_total = alternate(ours, other, runs)
                fast, slow = total / len(batch), other_total / len(maps)
                name = f"mebin_torch {side} x {side}, {device}, against {against}"
                measured_on = f"{source}; {1000 / fast:.0f} maps/s"
                rows.append(Row(name, measured_on, fast, slow, slow / fast))
    return rows


@benchmark("anomalib_mebin", one_core=True, by_name=True)
def bench_anomalib_mebin(options: argparse.Namespace) -> list[Row]:
    """One map binarized by torch, against anomalib's post-processor (a quarter of a minute)."""
    try:
        from anomalib.data import InferenceBatch
        from anomalib.post_processing import MEBinPostProcessor
    except ImportError as error:
        print(f"anomalib_mebin is left out: {error}; pip install 'anomalyncd[anomalib]'")
        return []
    category, source = category_maps(options)
    side = 160
    (anomaly_map,) = some_resized(category[-1:], side)
    batch = torch.from_numpy(anomaly_map)[None] / 255
    lo, hi = (peak / 255 for peak in search_range(category))
    post_processor = MEBinPostProcessor(enable_normalization=False)
    predictions = InferenceBatch(anomaly_map=batch, pred_score=batch.amax((1, 2)))
    fast, slow = alternate(
        lambda: mebin_torch.binarize(batch, lo, hi), lambda: post_processor(predictions), runs=1
    )
    name = f"mebin_torch {side} x {side}, cpu, against anomalib"
    return [Row(name, f"last of {source}", fast, slow, slow / fast)]
