"""Counts of a service in the text format of Prometheus."""

from __future__ import annotations

import os
import threading
from bisect import bisect_left
from collections import Counter as Counts
from collections.abc import Iterator, Sequence
from pathlib import Path


class Counter:
    """A number for each combination of labels, which only grows."""

    kind = "counter"

    def __init__(self, name: str, help: str, labels: Sequence[str] = ()) -> None:
        self.name, self.help, self._labels = name, help, tuple(labels)
        self._counts: Counts[tuple[str, ...]] = Counts()
        self._lock = threading.Lock()

    def add(self, *values: str) -> None:
        """Count on; `values` of the labels, in their order."""
        with self._lock:
            self._counts[values] += 1

    def lines(self) -> Iterator[str]:
        """Its samples."""
        with self._lock:
            counts = sorted(self._counts.items())
        for values, count in counts:
            yield f"{self.name}{_labels(self._labels, values)} {count}"


class Gauge:
    """A number that is set."""

    kind = "gauge"

    def __init__(self, name: str, help: str) -> None:
        self.name, self.help, self._value = name, help, 0.0

    def set(self, value: float) -> None:
        """Set it."""
        self._value = value

    def lines(self) -> Iterator[str]:
        """Its sample."""
        yield f"{self.name} {self._value:.16g}"


class Histogram:
    """How many observations are up to each bound."""

    kind = "histogram"

    def __init__(self, name: str, help: str, bounds: Sequence[float]) -> None:
        self.name, self.help, self._bounds = name, help, tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        self._lock = threading.Lock()

    def observe(self, value: float) -> None:
        """Count an observation."""
        with self._lock:
            self._counts[bisect_left(self._bounds, value)] += 1
            self._sum += value

    def lines(self) -> Iterator[str]:
        """Its samples: as the format has it, each bound counts all below it too."""
        with self._lock:
            counts, total = list(self._counts), self._sum
        below = 0
        for bound, count in zip((*self._bounds, float("inf")), counts, strict=True):
            below += count
            shown = "+Inf" if bound == float("inf") else f"{bound:g}"
            yield f"{self.name}_bucket{_labels(('le',), (shown,))} {below}"
        yield f"{self.name}_sum {total:.16g}"
        yield f"{self.name}_count {below}"


class Metrics:
    """All that a service counts."""

    def __init__(self) -> None:
        self.requests = Counter(
            "anomalyncd_requests_total", "Requests by path and status.", ("path", "status")
        )
        self.photographs = Counter(
            "anomalyncd_photographs_total",
            "Classified photographs by model and class.",
            ("model", "class"),
        )
        self.seconds = Histogram(
            "anomalyncd_predict_seconds",
            "Duration of POST /predict.",
            (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
        )
        self.together = Histogram(
            "anomalyncd_together", "Photographs classified at once.", (1, 2, 4, 8, 16)
        )
        self.waiting = Gauge("anomalyncd_waiting", "Photographs that wait.")
        self._memory = Gauge("process_resident_memory_bytes", "Resident memory in bytes.")

    def text(self) -> str:
        """The page that Prometheus reads."""
        self._memory.set(_resident_bytes())
        families = (
            *(self.requests, self.photographs, self.seconds),
            *(self.together, self.waiting, self._memory),
        )
        lines = []
        for family in families:
            lines += [f"# HELP {family.name} {family.help}", f"# TYPE {family.name} {family.kind}"]
            lines += family.lines()
        return "\n".join(lines) + "\n"


def _labels(names: Sequence[str], values: Sequence[str]) -> str:
    pairs = ",".join(f'{n}="{_escaped(v)}"' for n, v in zip(names, values, strict=True))
    return f"{{{pairs}}}" if pairs else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _resident_bytes() -> float:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:  # only Linux has it
        return 0.0
    return float(pages * os.sysconf("SC_PAGE_SIZE"))
