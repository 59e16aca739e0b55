"""How fast the parts are, each against the plain way to compute the same.

    python scripts/benchmark.py [--json FILE] [--maps FOLDER] [names...]

Both sides run on one core, warmed up, in alternation; figures are medians over the runs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for the oracles

from anomalyncd import mebin_torch
from anomalyncd.mebin import binarize_one, search_range
from tests.oracles.mebin import binarize_one as plain_binarize_one

N_MAPS = 8  # measured per size: enough to vary, few enough for the plain loop


@dataclass(frozen=True)
class Row:
    """One comparison."""

    name: str
    measured_on: str
    ours: float  # ms
    plain: float  # ms
    ratio: float  # plain / ours


Benchmark = Callable[[argparse.Namespace], list[Row]]
BENCHMARKS: dict[str, Benchmark] = {}


def benchmark(name: str) -> Callable[[Benchmark], Benchmark]:
    """Register a benchmark under the name it is called by on the command line."""

    def register(function: Benchmark) -> Benchmark:
        BENCHMARKS[name] = function
        return function

    return register


def alternate(
    ours: Callable[[], object], plain: Callable[[], object], runs: int
) -> tuple[float, float]:
    """Median milliseconds of both, after one run of each that does not count."""
    times: dict[Callable[[], object], list[float]] = {ours: [], plain: []}
    for function in times:
        function()
    for _ in range(runs):
        for function, taken in times.items():
            start = time.perf_counter()
            function()
            taken.append((time.perf_counter() - start) * 1000)
    return statistics.median(times[ours]), statistics.median(times[plain])


@benchmark("mebin")
def bench_mebin(options: argparse.Namespace) -> list[Row]:
    """One map binarized: 64 thresholds at once, against one after the other."""
    rows = []
    category, source = category_maps(options)
    lo, hi = search_range(category)
    for side, runs in ((256, 9), (1024, 5)):
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


@benchmark("mebin_torch")
def bench_mebin_torch(options: argparse.Namespace) -> list[Row]:
    """One map of a batch binarized by torch, against the plain loop and against `mebin`."""
    rows = []
    category, source = category_maps(options)
    lo, hi = search_range(category)
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    for side, runs in ((256, 9), (1024, 5)):
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


@benchmark("anomalib_mebin")
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


def category_maps(options: argparse.Namespace) -> tuple[list[np.ndarray], str]:
    """Maps of one category, and what to call them."""
    maps = drawn_maps() if options.maps is None else read_maps(options.maps)
    return maps, f"{len(maps)} maps, {'drawn' if options.maps is None else options.maps.name}"


def some_resized(category: list[np.ndarray], side: int) -> list[np.ndarray]:
    """`N_MAPS` maps from all over the category, (side, side)."""
    return [
        cv2.resize(anomaly_map, (side, side), interpolation=cv2.INTER_LINEAR)
        for anomaly_map in category[:: max(1, len(category) // N_MAPS)][:N_MAPS]
    ]


def drawn_maps(n: int = 32, side: int = 256) -> list[np.ndarray]:
    """A category of maps (side, side) uint8 as a detector gives them: always the same ones.

    Smooth unrest everywhere, more of it in some than in others; three in four have one to three
    defects that stand out by different amounts; normalised together.
    """
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side]
    maps = []
    for i in range(n):
        unrest = cv2.GaussianBlur(rng.standard_normal((side, side)), (0, 0), side / 64)
        anomaly_map = rng.uniform(0.05, 0.2) * unrest / unrest.std()
        for _ in range(rng.integers(1, 4) if i % 4 else 0):
            centre_x, centre_y = rng.uniform(0, side, 2)
            radius = rng.uniform(0.02, 0.1) * side
            distance = np.hypot(x - centre_x, y - centre_y) / radius
            anomaly_map += rng.uniform(0.5, 1.5) * np.exp(-(distance**2))
        maps.append(anomaly_map)
    stack = np.stack(maps)
    stack = (stack - stack.min()) / (stack.max() - stack.min()) * 255
    return list(stack.astype(np.uint8))


def read_maps(folder: Path) -> list[np.ndarray]:
    """All PNG files under the folder, as grey maps of one category."""
    maps = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in sorted(folder.rglob("*.png"))]
    if not maps:
        sys.exit(f"no *.png under {folder}; --maps wants the folder of one category's anomaly maps")
    return [anomaly_map for anomaly_map in maps if anomaly_map is not None]


def main() -> None:
    """Measure, print a table and, if asked to, write the rows as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(BENCHMARKS)}; default: all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    parser.add_argument("--maps", type=Path, metavar="FOLDER", help="real maps of one category")
    options = parser.parse_args()
    if unknown := set(options.names) - set(BENCHMARKS):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {list(BENCHMARKS)}")

    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    rows = [row for name in options.names or BENCHMARKS for row in BENCHMARKS[name](options)]

    table = Table("name", "measured on")
    for title in ("ours, ms", "plain, ms", "ratio"):
        table.add_column(title, justify="right")
    for row in rows:
        figures = (f"{row.ours:.3f}", f"{row.plain:.1f}", f"{row.ratio:,.1f} x")
        table.add_row(row.name, row.measured_on, *figures)
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    main()
