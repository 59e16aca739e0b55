"""The checks for a machine with a GPU: they run on a CPU too, and a miss is reported."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from scripts import gpu_check
from scripts.gpu_check import CHECKS, Figure


@pytest.mark.parametrize(
    ("figure", "met"),
    [
        (Figure("a", 3), True),
        (Figure("a", 3, at_most=3), True),
        (Figure("a", 3.1, at_most=3), False),
        (Figure("a", 3, at_least=3), True),
        (Figure("a", 2.9, at_least=3), False),
        (Figure("a", float("nan"), at_most=3), False),
        (Figure("a", float("nan"), at_least=3), False),
    ],
)
def test_a_figure_is_met_within_its_limits(figure: Figure, met: bool) -> None:
    assert figure.is_met == met


def test_all_checks_together_fit_the_minutes() -> None:
    assert sum(share for _, share in CHECKS.values()) == pytest.approx(1)


def checked(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["gpu_check", "--device", "cpu", "--tiny", *arguments])
    return gpu_check.main()


def test_a_check_runs_in_its_own_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    written = tmp_path / "found.json"
    assert checked(monkeypatch, "bfloat16", "--json", str(written)) == 0
    found = json.loads(written.read_text())
    assert found["device"].startswith("cpu") and found["versions"]["torch"]
    cosine, _ = found["checks"]["bfloat16"]["figures"]
    assert 0.99 <= cosine["value"] <= 1.001 and found["checks"]["bfloat16"]["is_met"]


def test_a_check_that_takes_too_long_is_ended_and_not_met(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert checked(monkeypatch, "musc", "--minutes", "0.01") == 1
    assert "musc: not met" in capfd.readouterr().out


def test_a_missed_limit_and_a_failed_process_are_not_met(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {
        "parity": ([Figure("gap", 2, at_most=1)], ""),
        "bfloat16": ([], "ended with status 1"),
        "musc": ([Figure("speed", 5)], ""),
    }
    monkeypatch.setattr(gpu_check, "_in_a_process", lambda name, options: found[name])
    assert checked(monkeypatch, "musc") == 0
    assert checked(monkeypatch, *found) == 1
    shown = capsys.readouterr().out
    assert "parity: not met" in shown and "bfloat16: not met" in shown and "MISSED: gap 2" in shown
