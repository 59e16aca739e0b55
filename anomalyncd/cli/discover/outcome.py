"""What a discovery found, and what can be done next, on the terminal."""

from __future__ import annotations

import csv
import shlex
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rich.console import Console
from rich.text import Text

from anomalyncd.cli.discover.check import Request
from anomalyncd.run import RunResult
from anomalyncd.runtime.console import printable
from anomalyncd.storage.run_record import metrics_of


def show(result: RunResult, request: Request) -> None:
    """Print classes, report and next commands to stdout; the last line but one is the run folder.

    Args:
        result: of a finished run.
        request: the command, for the next ones.
    """
    out = Console(highlight=False)

    def say(line: str) -> None:
        out.print(Text(printable(line)), soft_wrap=True)

    with (result.folder / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    classes = Counter((row["class"], row["class_name"]) for row in rows)
    say(f"{len(rows)} photographs in {len(classes)} classes:")
    width = max(len(name) for _, name in classes)
    for (number, name), count in sorted(classes.items(), key=lambda pair: int(pair[0][0])):
        sure = [float(row["confidence"]) for row in rows if row["class"] == number]
        meant = "   meant for those without a defect" if name == "class 0" else ""
        say(f"  {name:{width}}  {count:5}   mean confidence {sum(sure) / len(sure):.2f}{meant}")
    if (empty := result.metrics["counts"]["novel_classes"] - len(classes)) > 0:
        held = "class is" if empty == 1 else "classes are"
        say(f"{empty} more {held} the main class of no photograph: see the report.")
    if clean := sum(row["main_elements"] == "0" for row in rows):
        say(f"No defect was found in {clean} of them.")
    others = _other_numbers(result.metrics, result.metrics["counts"]["novel_classes"])
    if result.metrics.get("consensus"):
        say(str(result.metrics["consensus"].get("summary", "")))
    if request.classes is None and not request.labels_from_folders:
        best = ", ".join(map(str, others))
        k = result.metrics["counts"]["novel_classes"]
        say(f"The number of classes, {k}, is estimated: the smallest that is nearly the best.")
        say(f"Others to try with --classes: {best}")
    scores = metrics_of(result.metrics).scores
    if "nmi" in scores:
        shown = " / ".join(f"{scores[key]:.3f}" for key in ("nmi", "ari", "f1"))
        say(f"Compared with the sub-folders: NMI / ARI / F1 {shown}")
    say("")
    say("Next:")
    folder = str(result.folder)
    say(f"  {shlex.join(['anomalyncd', 'predict', folder])} NEW_PHOTOS")
    say(f"  {shlex.join(['anomalyncd', 'review', folder])}    # name and correct the classes")
    other = replace(request, classes=others[0])
    say(f"  {other.command}    # another number of classes")
    say("")
    say(f"Run folder: {folder}")
    say(f"Report: {result.folder / 'report.html'}")


def _other_numbers(metrics: Mapping[str, Any], k: int) -> list[int]:
    """The next best numbers of classes, or simply the next ones."""
    ranked = sorted(metrics.get("novel_classes_candidates", ()), key=lambda c: -c["score"])
    others = [candidate["k"] for candidate in ranked if candidate["k"] != k][:2]
    return others or [k + 1, *([k - 1] if k > 2 else [])]
