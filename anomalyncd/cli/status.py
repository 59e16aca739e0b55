"""A live table of all jobs, in any terminal with access to the run folders.

    anomalyncd status outputs [more folders…] [--once]

Ends when no job is running or queued. Pass the output_root to see queued jobs too.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from anomalyncd.cli.settings import entry
from anomalyncd.runtime.console import printable
from anomalyncd.storage.jobs import STATES, Job, computed_settings, differing, find, short_keys

STYLES = {"running": "bold cyan", "failed": "bold red", "stopped": "yellow", "done": "green"}
PENDING = ("running", "queued")
REST = 6  # lines of the screen that show no job
SILENCE = 600  # seconds without an update after which a running job is marked


def main() -> int:
    """Show the jobs below the given folders; returns 0 if they could be read."""
    parser = argparse.ArgumentParser(prog=entry.command(), description=__doc__.splitlines()[0])
    parser.add_argument("outputs", nargs="+", type=Path, help="folders with runs, at any depth")
    parser.add_argument("--once", action="store_true", help="print the table once and exit")
    options = parser.parse_args()

    with entry.one_line_errors(debug=False):
        jobs = find(options.outputs)
        out = Console(highlight=False)
        if options.once or not out.is_terminal:
            out.print(view(jobs, time.time()))
        else:
            watch(jobs, options.outputs, out)
    return 1 if entry.failures else 0


def watch(jobs: list[Job], outputs: list[Path], out: Console) -> None:
    """Show the table until no job is running or queued."""
    with Live(console=out, auto_refresh=False) as live:
        while any(job.state in PENDING for job in jobs):
            live.update(view(jobs, time.time(), out.height - REST), refresh=True)
            time.sleep(1)
            jobs = find(outputs)
        live.update(view(jobs, time.time()), refresh=True)


def view(jobs: list[Job], now: float, room: int | None = None) -> Group:
    """The table and a line of totals; if there are more jobs than `room`, the last are left out."""
    ordered = sorted(jobs, key=lambda job: STATES.index(job.state))
    shown = ordered[: max(room, 1)] if room is not None else ordered
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for name in ("product", "maps", "variant"):
        table.add_column(name, overflow="fold")
    table.add_column("seed", justify="right")
    table.add_column("state", no_wrap=True)
    table.add_column("NMI ARI F1, time left or reason", overflow="fold")
    for job, variant in zip(shown, variants(ordered), strict=False):
        state = Text(job.state, style=STYLES.get(job.state, ""))
        cells = (printable(text) for text in (*product_and_maps(job), variant, seed(job)))
        table.add_row(*map(Text, cells), state, Text(printable(details(job, now))))
    counts = Counter(job.state for job in jobs)
    sums = " · ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
    left_out = f" (the first {len(shown)} are shown)" if len(shown) < len(ordered) else ""
    return Group(table, Text(f"{sums}{left_out}"))


def product_and_maps(job: Job) -> tuple[str, str]:
    if not job.settings:
        return "?", ""
    return f"{job.settings['dataset']['kind']}/{job.settings['category']}", job.detector


def seed(job: Job) -> str:
    return str(job.settings["seed"]) if job.settings else ""


def variants(jobs: list[Job]) -> list[str]:
    """The settings in which each differs from others of the same data set and detector."""
    names = [""] * len(jobs)
    groups: dict[tuple[str, str], list[int]] = {}
    for i, job in enumerate(jobs):
        if job.settings:
            groups.setdefault((job.settings["dataset"]["kind"], job.detector), []).append(i)
    for alike in groups.values():
        apart = differing([computed_settings(jobs[i].settings) for i in alike])
        for i, settings in zip(alike, apart, strict=True):
            names[i] = ", ".join(f"{key}={value}" for key, value in short_keys(settings).items())
    return names


def details(job: Job, now: float) -> str:
    """The scores of a job, its progress, or why it failed."""
    match job.state:
        case "done":
            scores = job.scores if "nmi" in job.scores else {}
            figures = [f"{scores[key]:.3f}" for key in ("nmi", "ari", "f1") if scores]
            return " ".join(figures) or job.made_from or "no labels, so no scores"
        case "failed":
            return job.reason if job.settings else f"{job.name}: {job.reason}"
        case "stopped":
            return f"{stage(job)}; run it again to resume"
        case "not started":
            return job.reason
        case "queued":
            return ""
    silent = max(now - job.progress.at, 0) if job.progress.at else 0.0
    parts = [stage(job)]
    if job.progress.seconds_left is not None:
        left = duration(max(job.progress.seconds_left - silent, 0))
        parts.append(f"{left} left" + " before training" * (job.progress.unit == "view"))
    if silent > SILENCE:
        parts.append(f"last update {duration(silent)} ago")
    return ", ".join(parts)


def stage(job: Job) -> str:
    if job.progress.unit:
        return f"{job.progress.unit} {job.progress.done} of {job.progress.total}"
    return job.progress.stage or "started"


def duration(seconds: float) -> str:
    """`1:02:03` as hours, minutes and seconds, like a run's progress bar."""
    return str(timedelta(seconds=round(seconds)))
