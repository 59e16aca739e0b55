"""What a run says: on the terminal for a person, in a log file for later."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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
def logging_to(path: Path, *, quiet: bool) -> Iterator[None]:
    """Log to a file, and to the terminal unless quiet, where errors are shown all the same."""
    to_file = logging.FileHandler(path, encoding="utf-8")
    to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s"))
    to_terminal = _TerminalHandler(logging.ERROR if quiet else logging.INFO)
    log.setLevel(logging.DEBUG)
    log.propagate = False
    handlers: list[logging.Handler] = [to_file, to_terminal]
    for handler in handlers:
        log.addHandler(handler)
    try:
        yield
    finally:
        for handler in handlers:
            log.removeHandler(handler)
            handler.close()


@contextmanager
def progress(title: str, total: int, *, quiet: bool) -> Iterator[Callable[[int, str], None]]:
    """A bar with the time left; yields a function to be told how much is done and a word on it."""
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[word]}"),
    )
    with Progress(
        *columns, console=terminal, disable=quiet or not terminal.is_terminal, transient=True
    ) as bar:
        task = bar.add_task(title, total=total, word="")
        yield lambda done, word: bar.update(task, completed=done, word=word)


def show_result(folder: Path, figures: dict[str, Any]) -> None:
    """Print a finished run's scores and where to look next, to stdout, also in quiet mode."""
    out = Console()
    table = Table(title=f"{figures['dataset']} / {figures['category']}", title_justify="left")
    table.add_column("scores")
    for name in ("NMI", "ARI", "F1"):
        table.add_column(name, justify="right")
    for level, scores in figures["scores"].items():
        if scores:
            table.add_row(level, *(f"{scores[name]:.3f}" for name in ("nmi", "ari", "f1")))
    if table.row_count:
        out.print(table)
    else:
        out.print("No labels, so no scores; the report shows the classes that were found.")
    for warning in figures["warnings"]:
        out.print(f"[bold yellow]Note:[/] {warning}")
    out.print(f"Report: {folder / 'report.html'}", soft_wrap=True)
