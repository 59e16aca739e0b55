"""Trackers: one interface, no login prompt, no files if nothing was logged."""

from __future__ import annotations

import sys
from pathlib import Path
from unittest.mock import MagicMock

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from anomalyncd.config import NoTrackerConfig, TensorboardConfig, TrackerConfig, WandbConfig
from anomalyncd.errors import InputError
from anomalyncd.runtime import tracking


def track(config: TrackerConfig, folder: Path) -> None:
    tracker = tracking.create(config, folder, "a run", {"seed": 1})
    for epoch in range(3):
        tracker.log({"total": 5.0 - epoch}, epoch)
    tracker.summarise({"image/nmi": 0.5})
    tracker.finish()


def test_none_writes_nothing(tmp_path: Path) -> None:
    track(NoTrackerConfig(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_tensorboard_holds_figures_and_scores(tmp_path: Path) -> None:
    track(TensorboardConfig(), tmp_path)
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [event.value for event in events.Scalars("total")] == [5.0, 4.0, 3.0]
    assert events.Scalars("image/nmi")[-1].value == 0.5


def test_wandb_is_offline_and_silent(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    track(WandbConfig(), tmp_path)
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))
    printed = capfd.readouterr()
    assert "login" not in (printed.out + printed.err).lower()


def test_wandb_stays_one_run_when_resumed(tmp_path: Path) -> None:
    names = set()
    for _ in range(2):
        track(WandbConfig(), tmp_path)
        names |= {path.name for path in tmp_path.glob("wandb/offline-run-*/*.wandb")}
    assert len(names) == 1  # two folders for two processes, both of one run
    (tmp_path / "wandb" / "run_id").write_text("../../elsewhere")
    track(WandbConfig(), tmp_path)
    assert len({path.name for path in tmp_path.glob("wandb/offline-run-*/*.wandb")}) == 2


def test_wandb_online_resumes_by_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[dict] = []
    monkeypatch.setattr("wandb.login", lambda prompt: True)
    monkeypatch.setattr("wandb.init", lambda **given: started.append(given) or MagicMock())
    for _ in range(2):
        track(WandbConfig(mode="online"), tmp_path)
    assert [given["resume"] for given in started] == ["allow", "allow"]
    assert started[0]["id"] == started[1]["id"]


def test_wandb_writes_no_files_if_nothing_was_logged(tmp_path: Path) -> None:
    tracking.create(WandbConfig(), tmp_path, "a run", {}).finish()
    assert not list(tmp_path.iterdir())


def test_wandb_online_without_a_key_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path))
    with pytest.raises(InputError, match="wandb has no API key"):
        tracking.create(WandbConfig(mode="online"), tmp_path, "a run", {})


def test_a_tracker_that_is_not_installed_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # as if it were not installed
    with pytest.raises(InputError, match="tracker=wandb is not installed; pip install wandb"):
        track(WandbConfig(), tmp_path)
