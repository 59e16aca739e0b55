"""Messages of a run."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

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


def stage(seconds: list[float], monkeypatch: pytest.MonkeyPatch, *, quiet: bool) -> list[str]:
    """The lines of a stage of ten steps, at these times after its begin."""
    clock = iter([0.0, *seconds])
    monkeypatch.setattr(console.time, "perf_counter", lambda: next(clock))
    shown: list[str] = []
    monkeypatch.setattr(console.terminal, "print", lambda text, **_: shown.append(str(text)))
    with (
        console.logging_to(None, quiet=quiet),
        console.steps("Maps") as step,
    ):
        for done in range(1, len(seconds) + 1):
            step(done, 10)
    return shown


def test_a_long_stage_reports_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    assert stage([1, 2, 3.5, 4, 20, 24], monkeypatch, quiet=False) == [
        "Maps: 3 of 10, about 9 s left",
        "Maps: 5 of 10, about 24 s left",
    ]
    assert stage([1, 2, 3.5, 4, 20, 24], monkeypatch, quiet=True) == []


def test_a_short_stage_reports_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert stage([0.1 * n for n in range(10)], monkeypatch, quiet=False) == []


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "1 s"), (40.2, "40 s"), (89, "89 s"), (95, "2 min"), (3600, "60 min"), (9000, "2.5 h")],
)
def test_a_duration_is_as_exact_as_an_estimate(seconds: float, shown: str) -> None:
    assert console.duration(seconds) == shown
