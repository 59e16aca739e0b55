"""Messages of a run."""

from __future__ import annotations

import logging
from pathlib import Path

from anomalyncd.runtime import console


def test_a_run_restores_the_logging_settings(tmp_path: Path) -> None:
    """A caller in Python still receives the package's log messages afterwards."""
    log, raising = logging.getLogger("anomalyncd"), logging.raiseExceptions
    before = (log.level, log.propagate, log.handlers.copy())
    with console.logging_to(tmp_path / "log.txt", quiet=True):
        log.info("within")
    assert "within" in (tmp_path / "log.txt").read_text(encoding="utf-8")
    assert (log.level, log.propagate, log.handlers) == before
    assert logging.raiseExceptions == raising
