"""docs/reliability.md: what was tried, how often, and what came of it."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from scripts.campaign.cases import Case, Row
from scripts.campaign.process import ROOT

PARTS = {
    "kills": "Killed (SIGKILL) and called again: the result must be that of a run without a kill",
    "bad-input": "Input that cannot be used: one line that names it, or a sound result",
    "tampering": "Damaged caches: the same result. Foreign files: one line, the rest is shown",
    "jobs": "Jobs at once on one cold cache: the results that they have alone",
    "disks": "Disks that are too small: one line with a path; with room, the same result",
}
OUTCOME = 160  # characters of it that the table shows

PROMISED = """\
## What is promised

On one machine, with one number of threads and the same versions of all libraries (`metrics.json`
records both):

- **Killed at any moment, a run resumes to the same result**: the same command ends with the same
  `metrics.json` (but for times and `resumed_after_epochs`), `predictions.csv`, `regions.csv`,
  `model.safetensors` and `report.html` (but for times), bit for bit. `rerun=true` keeps the
  finished run that it sets aside.
- **What cannot be used is named in one line**, with status 1 and without a traceback.
- **A damaged cache entry is made again**: nobody's result depends on it.
- **Files that others wrote are data**: nothing in them is executed or resolved, and an odd run
  folder does not hide the others in `status.py` and `table.py`.
- **Jobs share a cache** and build each entry of it once; two never compute one run.
- **A full disk is one line with a path**, and with room the same command finishes.

## What is not promised

- **Another number of threads changes the last digits**: sums are taken in another order. The same
  holds for another processor (or `ATEN_CPU_CAPABILITY`), a GPU, and other versions of libraries.
  A model trained on one predicts on the others.
- **Power cuts** are not tried here: a killed process leaves what it wrote to the kernel, a power
  cut need not. Results are synced to disk before they take their names, their folders are not.
- **Network file systems** are not tried here. Locks are those of the file system.
- **GPUs** are not tried here: all of this ran on a CPU.
- **Memory**: each run may take 8 GB here. What kills a process from outside for its memory is one
  more kill.
"""


def document(rows: Sequence[Row], cases: Sequence[Case], command: str, minutes: float) -> str:
    """The whole page."""
    done = Counter((row.part, row.kind) for row in rows)
    planned = Counter((case.part, case.kind) for case in cases)
    faults = [row for row in rows if row.fault]
    not_run = sum(planned.values()) - sum(done.values())
    kills = sum(len(row.tags) for row in rows)
    lines = [
        "# Reliability",
        "",
        f"What `{command}` tried, and what came of it. The page is written by it; see "
        "[`scripts/campaign/`](../scripts/campaign/README.md) for how.",
        "",
        f"Machine: {processor()}, {os.cpu_count()} cores, one thread a run; "
        f"{platform.system()}, Python {platform.python_version()}. It took {minutes:.0f} minutes.",
        "",
        f"**{len(rows)} cases, {kills} kills, {sum(row.tracebacks for row in rows)} tracebacks, "
        f"{len(faults)} not as promised**"
        + (f", {not_run} not run for want of time." * bool(not_run) or "."),
        "",
    ]
    for part, promise in PARTS.items():
        own = [row for row in rows if row.part == part]
        if own:
            lines += [f"### {part.capitalize()}", "", f"{promise}.", "", *_sums(own), ""]
    lines += [PROMISED]
    if faults:
        lines += ["## Not as promised", "", *_table(faults, fault=True), ""]
    lines += ["## Every case", ""]
    for part, kind in done:
        own = [row for row in rows if (row.part, row.kind) == (part, kind)]
        lines += [f"<details><summary>{part}: {kind} ({len(own)})</summary>", ""]
        lines += [*_table(own), "", "</details>", ""]
    return "\n".join(lines).rstrip() + "\n"


def _sums(rows: Sequence[Row]) -> list[str]:
    lines = ["| what | cases | as promised | tracebacks |", "| --- | ---: | ---: | ---: |"]
    for kind in dict.fromkeys(row.kind for row in rows):
        own = [row for row in rows if row.kind == kind]
        sound = sum(not row.fault for row in own)
        lines.append(f"| {kind} | {len(own)} | {sound} | {sum(row.tracebacks for row in own)} |")
    if stages := Counter(stage for row in rows for stage in row.tags):
        lines += ["", "| killed in | kills |", "| --- | ---: |"]
        lines += [f"| {stage} | {count} |" for stage, count in stages.most_common()]
        lines.append(f"| all | {sum(stages.values())} |")
    return lines


def _table(rows: Sequence[Row], *, fault: bool = False) -> list[str]:
    lines = [
        "| case | status | lines on stderr | tracebacks | names it | outcome |",
        "| --- | ---: | ---: | ---: | --- | --- |",
    ]
    for row in rows:
        name = f"{row.kind}: {row.name}" if fault else row.name
        named = {True: "yes", False: "no", None: "–"}[row.named]
        status = "–" if row.status is None else str(row.status)
        told = (row.fault if fault else row.outcome)[:OUTCOME]
        cells = (_cell(name), status, str(row.lines), str(row.tracebacks), named, _cell(told))
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _cell(text: str) -> str:
    """Text of any origin, for a cell of the table: no markup, no control characters, no paths."""
    for place in (ROOT, sys.prefix, sys.base_prefix, Path.home()):
        text = text.replace(f"{place}{os.sep}", "")
    text = re.sub(r"/\S*/campaign-\w+/(?:\S*/(?:work|together)/)?", "", text)
    text = "".join(c if c.isprintable() else "·" for c in text)
    return re.sub(r"([|<>`*_\[\]~\\$])", r"\\\1", text)


def processor() -> str:
    """Its name."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists() and (found := re.search(r"model name\s*: (.*)", cpuinfo.read_text())):
        return found[1].strip()
    return platform.processor() or platform.machine()
