"""Messages of a run: on the terminal, and in a log file."""

from __future__ import annotations

import logging
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

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
from rich.text import Text

from anomalyncd.storage.jobs import Job
from anomalyncd.storage.run_record import Metrics

log = logging.getLogger("anomalyncd")
terminal = Console(stderr=True)
_quiet = True  # unless a run logs to the terminal


def printable(text: str) -> str:
    r"""Escape control characters in names that others chose, since a terminal would obey them.

    All characters are escaped that Unicode classifies as control, format (including changes of the
    writing direction), surrogate, private or unassigned, and all that end a line.
    """
    return "".join(
        sign
        if sign.isprintable() or unicodedata.category(sign) == "Zs"
        else sign.encode("unicode_escape").decode("ascii")
        for sign in text
    )


class _TerminalHandler(logging.Handler):
    """One line per message, above a running progress bar; long lines are not wrapped."""

    def emit(self, record: logging.LogRecord) -> None:
        style = "bold yellow" if record.levelno >= logging.WARNING else ""
        terminal.print(Text(printable(record.getMessage()), style), soft_wrap=True)


class _OneLine(logging.Formatter):
    """One line per message, followed by the traceback if there is one."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return printable(super().formatMessage(record))


@contextmanager
def logging_to(path: Path | None, *, quiet: bool) -> Iterator[None]:
    """Log to a file, if one is given, and to the terminal, which shows only errors if quiet."""
    global _quiet
    to_terminal = _TerminalHandler(logging.ERROR if quiet else logging.INFO)
    before = log.level, log.propagate, logging.raiseExceptions
    was_quiet, _quiet = _quiet, quiet
    log.setLevel(logging.DEBUG)
    logging.raiseExceptions = False  # on a full disk the run reports the error, not logging
    log.propagate = False
    handlers: list[logging.Handler] = [to_terminal]
    if path is not None:
        to_file = logging.FileHandler(path, encoding="utf-8")
        to_file.setFormatter(_OneLine("%(asctime)s %(levelname)-7s %(message)s"))
        handlers.append(to_file)
    for handler in handlers:
        log.addHandler(handler)
    try:
        yield
    finally:
        for handler in handlers:
            log.removeHandler(handler)
            handler.close()
        level, log.propagate, logging.raiseExceptions = before
        log.setLevel(level)
        _quiet = was_quiet


def say(message: str) -> None:
    """Print a message to the terminal that no log file needs."""
    terminal.print(Text(printable(message)), soft_wrap=True)


@contextmanager
def progress(title: str, total: int, *, quiet: bool) -> Iterator[Callable[[int, str], None]]:
    """A progress bar with the time left; yields a function of (amount done, short text)."""
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


# Without a bar, a stage logs how far it is after so many seconds, and then every so many.
_FIRST_LINE, _NEXT_LINE = 3.0, 15.0


@contextmanager
def steps(title: str, *, quiet: bool | None = None) -> Iterator[Callable[[int, int], None]]:
    """Show how far a stage is; yields a function of (amount done, amount in all).

    A bar with the time left on a terminal; elsewhere a line now and then, from 3 s on.

    Args:
        title: the stage's name.
        quiet: show nothing; None: as `logging_to` was told.
    """
    hidden = _quiet if quiet is None else quiet
    due = time.perf_counter() + _FIRST_LINE
    with ExitStack() as stack:
        bar: Callable[[int, str], None] | None = None
        first, began = 0, 0.0  # what was done when the bar began, and when: it may begin late

        def advance(done: int, total: int) -> None:
            nonlocal bar, due, first, began
            now = time.perf_counter()
            if bar is None:
                bar = stack.enter_context(progress(title, total, quiet=hidden))
                first, began = done, now
            bar(done, "")
            if not terminal.is_terminal and now > due and first < done < total:
                due = now + _NEXT_LINE
                left = (now - began) / (done - first) * (total - done)
                level = logging.DEBUG if hidden else logging.INFO
                log.log(level, "%s: %d of %d, about %s left", title, done, total, duration(left))

        yield advance


def duration(seconds: float) -> str:
    """ "40 s", "3 min", "2.5 h": as exact as an estimate is."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"


class ProgressThrottle:
    """Detects when another fifth of a task is done, to log a line where no bar is shown."""

    def __init__(self, share: float = 0.0) -> None:
        self._fifths = int(5 * share)

    def another(self, share: float) -> bool:
        before, self._fifths = self._fifths, int(5 * share)
        return self._fifths > before


def show_sweep(results: list[Job], failures: list[str]) -> None:
    """Print the finished jobs of a sweep as one table, and why others failed."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("product", "detector"):
        table.add_column(name, overflow="fold")
    for name in ("seed", "NMI", "ARI", "F1", "I-AUROC", "P-AUROC", "AUPRO"):
        table.add_column(name, justify="right", no_wrap=True)
    for job in results:
        shown = ("nmi", "ari", "f1", "image_auroc", "pixel_auroc", "aupro")
        numbers = [job.scores.get(key) for key in shown]
        table.add_row(
            Text(printable(f"{job.settings['dataset']['kind']}/{job.settings['category']}")),
            Text(printable(job.detector)),
            str(job.settings["seed"]),
            *("–" if number is None else f"{number:.3f}" for number in numbers),
        )
    out = Console(highlight=False)
    if not out.is_terminal:  # lines in a file may be long
        out.width = 120
    out.print(table)
    for failure in failures:
        out.print(Text(f"failed: {printable(failure)}"), soft_wrap=True)


def show_detection(quality: Mapping[str, float | None]) -> None:
    """Print the known quality figures of the anomaly maps and their masks."""
    names = {
        **{"image_auroc": "image AUROC", "pixel_auroc": "pixel AUROC", "aupro": "AUPRO"},
        **{"fpr": "image FPR", "fnr": "image FNR"},
    }
    known = {key: quality.get(key) for key in names}
    figures = [f"{names[key]} {value:.3f}" for key, value in known.items() if value is not None]
    if figures:
        Console(highlight=False).print(f"Anomaly maps: {', '.join(figures)}")


def show_result(folder: Path, metrics: Metrics) -> None:
    """Print a finished run's scores and the path of its report to stdout, also in quiet mode."""
    out = Console(highlight=False)
    table = Table()
    table.add_column(Text(printable(f"{metrics.dataset} / {metrics.category}")))
    for name in ("NMI", "ARI", "F1"):
        table.add_column(name, justify="right")
    by_image = metrics.region_labels == "image"
    region = "region (its image's class)" if by_image else "region"
    for name, prefix in (("image", ""), (region, "region_")):
        of_level = [metrics.scores.get(prefix + key) for key in ("nmi", "ari", "f1")]
        if None not in of_level:
            table.add_row(name, *(f"{score:.3f}" for score in of_level))
    if table.row_count:
        out.print(table)
    else:
        out.print("No labels, so no scores; the report shows the discovered classes.")
    show_detection(metrics.scores)
    out.print(Text(f"Report: {printable(str(folder / 'report.html'))}"), soft_wrap=True)
