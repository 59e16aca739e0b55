"""Messages of a run."""

from __future__ import annotations

import logging
from pathlib import Path

from anomalyncd.runtime import console


def test_a_run_leaves_logging_as_it_was(tmp_path: Path) -> None:
    """Whoever calls a run from Python still hears what the package says afterwards."""
    log, raising = logging.getLogger("anomalyncd"), logging.raiseExceptions
    before = (log.level, log.propagate, log.handlers.copy())
    with console.logging_to(tmp_path / "log.txt", quiet=True):
        log.info("within")
    assert "within" in (tmp_path / "log.txt").read_text(encoding="utf-8")
    assert (log.level, log.propagate, log.handlers) == before
    assert logging.raiseExceptions == raising
