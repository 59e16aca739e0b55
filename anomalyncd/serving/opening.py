"""The model of a path."""

from __future__ import annotations

from pathlib import Path

from anomalyncd.serving.models import Limits, Model
from anomalyncd.storage.exported import is_exported


def opened(path: Path, limits: Limits) -> Model:
    """The model of an exported file, or of a finished run.

    Raises:
        InputError: it is neither, or cannot classify a photograph by itself.
    """
    if is_exported(path):
        from anomalyncd.serving.of_file import OfFile

        return OfFile(path, limits)
    from anomalyncd.serving.of_run import OfRun  # loads torch

    return OfRun(path, limits)
