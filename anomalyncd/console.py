"""What a run says: on the terminal for a person, in a log file for later."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

log = logging.getLogger("anomalyncd")
terminal = Console(stderr=True)


class _TerminalHandler(logging.Handler):
    """One line a message, above a running progress bar, never broken inside a path."""

    def emit(self, record: logging.LogRecord) -> None:
        style = "bold yellow" if record.levelno >= logging.WARNING else ""
        terminal.print(
            record.getMessage(), style=style, markup=False, highlight=False, soft_wrap=True
        )


@contextmanager
def logging_to(path: Path | None, *, quiet: bool) -> Iterator[None]:
    """Log to a file, if one is given, and to the terminal, where quiet leaves errors alone."""
    to_terminal = _TerminalHandler(logging.ERROR if quiet else logging.INFO)
    log.setLevel(logging.DEBUG)
    logging.raiseExceptions = False  # a full disk stops the run, with one message, not the log
    log.propagate = False
    handlers: list[logging.Handler] = [to_terminal]
    if path is not None:
        to_file = logging.FileHandler(path, encoding="utf-8")
        to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s"))
        handlers.append(to_file)
    for handler in handlers:
        log.addHandler(handler)
    try:
        yield
    finally:
        for handler in handlers:
            log.removeHandler(handler)
            handler.close()


def say(message: str) -> None:
    """Tell the person at the terminal something that no log needs."""
    terminal.print(message, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def progress(title: str, total: int, *, quiet: bool) -> Iterator[Callable[[int, str], None]]:
    """A bar with the time left; yields a function to be told how much is done and a word on it."""
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("elapsed,"),
        TimeRemainingColumn(),
        TextColumn("left"),
        TextColumn("{task.fields[word]}"),
    )
    with Progress(
        *columns, console=terminal, disable=quiet or not terminal.is_terminal, transient=True
    ) as bar:
        task = bar.add_task(title, total=total, word="")
        yield lambda done, word: bar.update(task, completed=done, word=word)


class Fifths:
    """Says when another fifth of something is done, which is worth a line where no bar is drawn."""

    def __init__(self, share: float = 0.0) -> None:
        self._told = int(5 * share)

    def another(self, share: float) -> bool:
        before, self._told = self._told, int(5 * share)
        return self._told > before


def show_sweep(results: list[dict[str, Any]], failures: list[str]) -> None:
    """Print the finished jobs of a sweep as one table, and why others failed."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("product", "detector"):
        table.add_column(name, overflow="fold")
    for name in ("seed", "NMI", "ARI", "F1", "I-AUROC", "P-AUROC", "AUPRO"):
        table.add_column(name, justify="right", no_wrap=True)
    for figures in results:
        scores, quality = figures["scores"]["image"] or {}, figures["detection"]
        numbers = [scores.get(key) for key in ("nmi", "ari", "f1")]
        numbers += [quality[key] for key in ("image_auroc", "pixel_auroc", "aupro")]
        table.add_row(
            f"{figures['dataset']}/{figures['category']}",
            figures["detector"],
            str(figures["seed"]),
            *("–" if number is None else f"{number:.3f}" for number in numbers),
        )
    out = Console(highlight=False)
    if not out.is_terminal:  # a file's lines may be as long as they need
        out.width = 120
    out.print(table)
    for failure in failures:
        out.print(f"failed: {failure}", markup=False, soft_wrap=True)


def show_detection(quality: dict[str, float | None]) -> None:
    """Print how good the anomaly maps and their masks are, as far as it is known."""
    names = {
        **{"image_auroc": "image AUROC", "pixel_auroc": "pixel AUROC", "aupro": "AUPRO"},
        **{"fpr": "image FPR", "fnr": "image FNR"},
    }
    told = [f"{names[key]} {value:.3f}" for key, value in quality.items() if value is not None]
    if told:
        Console(highlight=False).print(f"Anomaly maps: {', '.join(told)}")


def show_result(folder: Path, figures: dict[str, Any]) -> None:
    """Print a finished run's scores and where to look next, to stdout, also in quiet mode."""
    out = Console(highlight=False)
    table = Table()
    table.add_column(f"{figures['dataset']} / {figures['category']}")
    for name in ("NMI", "ARI", "F1"):
        table.add_column(name, justify="right")
    for level, scores in figures["scores"].items():
        if scores:
            by_image = level == "region" and figures.get("region_labels") == "image"
            name = "region (its image's class)" if by_image else level
            table.add_row(name, *(f"{scores[name]:.3f}" for name in ("nmi", "ari", "f1")))
    if table.row_count:
        out.print(table)
    else:
        out.print("No labels, so no scores; the report shows the classes that were found.")
    show_detection(figures["detection"])
    out.print(f"Report: {folder / 'report.html'}", soft_wrap=True, markup=False)
