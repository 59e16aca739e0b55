"""Benchmarks of each part against a plain implementation.

    python -m scripts.benchmark [names...] [--all] [--json FILE] [--device cuda] [--threads N]

Both sides run warmed up and in alternation; figures are medians. The plain way is the release's, as
`tests/oracles/` keeps it: Pillow's views one after the other, every token through every block,
attention by an (n, n) matrix, float32. "Of limit" is the share of the time that the machine could
not beat: the floating-point operations of our way at the measured peak of a matrix product in the
same precision, or the bytes that must be moved at the measured bandwidth. Networks are untrained
and regions drawn, which changes no time.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import cv2
import torch
from rich.console import Console
from rich.table import Table

from anomalyncd.runtime import devices
from anomalyncd.runtime.versions import versions
from scripts.benchmark import (  # noqa: F401  # they register themselves
    deployed,
    mebin,
    new_images,
    prediction,
    regions,
    training,
)
from scripts.benchmark.harness import BENCHMARKS


def main() -> None:
    """Measure, print a table and, if asked to, write the rows as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = [name for name, entry in BENCHMARKS.items() if not entry.by_name]
    parser.add_argument(
        "names", nargs="*", help=f"of {', '.join(BENCHMARKS)}; default: {', '.join(default)}"
    )
    parser.add_argument("--all", action="store_true", help="also those that take long")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    parser.add_argument("--maps", type=Path, metavar="FOLDER", help="real maps of one category")
    parser.add_argument("--device", type=devices.choose, default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--tiny", action="store_true", help="only to see that everything runs")
    options = parser.parse_args()
    if unknown := set(options.names) - set(BENCHMARKS):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {list(BENCHMARKS)}")

    torch.set_flush_denormal(True)  # they slow Pillow's blur three times, which would flatter ours
    rows = []
    for name in options.names or (BENCHMARKS if options.all else default):
        threads = 1 if BENCHMARKS[name].one_core else options.threads
        cv2.setNumThreads(threads)
        torch.set_num_threads(threads)
        rows += BENCHMARKS[name].measure(options)

    table = Table("name", "measured on", title=devices.describe(options.device))
    for title in ("ours, ms", "plain, ms", "ratio", "of limit"):
        table.add_column(title, justify="right")
    for row in rows:
        of_limit = "" if row.of_limit is None else f"{row.of_limit:.0%}"
        figures = (f"{row.ours:,.3f}", f"{row.plain:,.1f}", f"{row.ratio:,.1f} x", of_limit)
        table.add_row(row.name, row.measured_on, *figures)
    Console().print(table)
    if options.json:
        measured = {
            "device": devices.describe(options.device),
            "threads": options.threads,
            "versions": versions(),
            "rows": [asdict(row) for row in rows],
        }
        options.json.write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
