"""RUN comes first: swapped arguments are recognised before anything is read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from anomalyncd.errors import InputError
from anomalyncd.storage.run_record import CONFIG


def require_run_first(run: str | Path, others: Iterable[str | Path], verb: str) -> None:
    """
    Raises:
        InputError: `run` is no run's folder, but one of the others is.
    """
    if Path(run, CONFIG).is_file():
        return
    for other in others:
        if Path(other, CONFIG).is_file():
            raise InputError(
                f"{run}: not the folder of a run, but {other} is one; the run comes first: "
                f"anomalyncd {verb} {other} {run}"
            )
