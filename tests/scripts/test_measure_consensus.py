"""The measurement of a consensus: which runs it starts, and what it says of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from anomalyncd.config import Config
from anomalyncd.run import RunResult
from scripts import measure_consensus


def test_every_kind_is_run_with_every_seed_and_compared(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def execute(config: Config) -> RunResult:
        gain = 0.1 if config.discovery.is_consensus else 0.0
        image = {"nmi": 0.3 + gain * config.seed, "ari": 0.2, "f1": 0.5}
        k = 4 if config.novel_classes == "estimate" else 5
        metrics = {"scores": {"image": image}, "counts": {"novel_classes": k}}
        return RunResult(Path(), metrics | {"seconds": {"total": 9.0}}, was_finished=False)

    monkeypatch.setattr(measure_consensus, "execute", execute)
    measure_consensus.main(["--seeds", "1,3", "dataset=demo", "detector=simulated"])
    shown = capsys.readouterr().out
    assert (
        "single     NMI 0.300 ± 0.000  ARI 0.200 ± 0.000  F1 0.500 ± 0.000  classes 5, 5" in shown
    )
    assert "consensus  NMI 0.500 ± 0.141" in shown
    assert "estimated  NMI 0.500 ± 0.141" in shown and "classes 4, 4" in shown
    assert "NMI, consensus less single: +0.200, worst +0.100" in shown
