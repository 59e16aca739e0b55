"""What every benchmark uses: rows, alternating runs, and the limits of the machine."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import torch
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Row:
    """One comparison."""

    name: str
    measured_on: str
    ours: float  # ms
    plain: float  # ms
    ratio: float  # plain / ours
    of_limit: float | None = None  # least possible time / ours; None: no limit is known


Measure = Callable[[argparse.Namespace], list[Row]]


@dataclass(frozen=True)
class Benchmark:
    measure: Measure
    one_core: bool  # else as many threads as --threads says
    by_name: bool  # takes long, or needs a GPU: only when asked for


BENCHMARKS: dict[str, Benchmark] = {}


def benchmark(
    name: str, *, one_core: bool = False, by_name: bool = False
) -> Callable[[Measure], Measure]:
    """Register a benchmark under the name it is called by on the command line."""

    def register(measure: Measure) -> Measure:
        BENCHMARKS[name] = Benchmark(measure, one_core, by_name)
        return measure

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
            taken.append(milliseconds(function))
    return statistics.median(times[ours]), statistics.median(times[plain])


def milliseconds(function: Callable[[], object]) -> float:
    wait_for_gpu()
    start = time.perf_counter()
    function()
    wait_for_gpu()
    return (time.perf_counter() - start) * 1000


def wait_for_gpu() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def row(
    name: str,
    measured_on: str,
    ours: Callable[[], object],
    plain: Callable[[], object],
    *,
    runs: int,
    least: float | None = None,
) -> Row:
    """Compare two ways, and ours with the `least` seconds that it could take."""
    fast, slow = alternate(ours, plain, runs)
    of_limit = None if least is None else least * 1000 / fast
    return Row(name, measured_on, fast, slow, slow / fast, of_limit)


def operations(function: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products (and attention) in a call."""
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


@cache
def peak(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of the fastest matrix product of some sizes."""
    best = 0.0
    sides = (512, 1024, 2048) if device.type == "cpu" else (4096, 8192, 16384)
    for side in sides:
        a = torch.randn(side, side, device=device, dtype=dtype)
        torch.mm(a, a)
        taken = min(milliseconds(partial(torch.mm, a, a)) for _ in range(5))
        best = max(best, 2 * side**3 / (taken / 1000))
    return best


@cache
def bandwidth(device: torch.device) -> float:
    """Bytes a second that a copy reads and writes."""
    source = torch.zeros(2**26, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    taken = min(milliseconds(partial(target.copy_, source)) for _ in range(5))
    return 2 * source.nbytes / (taken / 1000)
