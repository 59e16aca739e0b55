"""A run's folder is determined by what the run computes, and by nothing else."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from anomalyncd.storage.run_folder import RunFolder, _folder_name, is_locked
from anomalyncd.storage.run_record import Progress, read_progress
from tests.helpers.runs import composed

FIGURES = {
    **{"dataset": "demo", "category": "demo", "scores": {}, "detection": {}},
    **{"normal_recall": {}, "seed": 1},
}
SETTINGS = ["detector=musc_embedded", "output_root=out", "cache_root=cache"]


def place(*overrides: str) -> Path:
    return RunFolder.of(composed([*SETTINGS, *overrides])).root


@pytest.mark.parametrize(
    "override",
    [
        *("train.epochs=3", "train.features=online", "fusion.weighting=score", "mebin.step=5"),
        *("regions.padding=0.2", "attention.masked_blocks=3", "backbone.image_size=64"),
        *("novel_classes=3", "dataset.seed=1", "base.seed=1", "detector.stages=2", "seed=1"),
        *("category=other", "base=none"),
    ],
)
def test_settings_that_change_the_result_change_the_folder(override: str) -> None:
    assert place(override) != place()


@pytest.mark.parametrize(
    "override",
    [
        *("tracker=none", "device=cpu", "quiet=true", "rerun=true", "debug=true"),
        *("forward_batch=3", "max_megapixels=9", "cache_root=elsewhere", "detector.memory_gb=1"),
    ],
)
def test_settings_that_do_not_change_the_result_do_not_change_the_folder(override: str) -> None:
    assert place(override) == place()


def test_the_path_of_a_folder_names_dataset_category_and_detector() -> None:
    parts = place("seed=5", "category='a b+.'").parts
    assert parts[:4] == ("out", "demo", "a_b+", "musc-embedded")
    assert parts[4].startswith("embedded-demo-")
    assert parts[5] == "seed-5"
    assert len(parts[4]) == len("embedded-demo-") + 8
    assert place("seed=6").parts[:5] == place("seed=5").parts[:5]
    assert _folder_name("...") == "_"
    moved = place("output_root=elsewhere")
    assert moved.parts[0] == "elsewhere" and moved.parts[1:] == place().parts[1:]


def test_a_folder_is_archived_under_the_next_free_name(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "seed-1")
    folder.archive()  # no folder: no error
    for number in (1, 2):
        folder.create()
        folder.write_text("note.txt", str(number))
        folder.archive()
        assert (tmp_path / f"seed-1.old-{number}" / "note.txt").read_text() == str(number)
    assert not folder.root.exists()


def test_a_run_is_finished_by_its_metrics_and_held_by_its_lock(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "seed-1")
    assert not folder.is_held and not is_locked(tmp_path / "absent")
    with folder.held():
        assert folder.is_held
        folder.create()
        folder.note_progress(stage="train", done=1)
        progress = read_progress(folder.root)
        assert (progress.stage, progress.done) == ("train", 1)
        assert progress.at == pytest.approx(time.time(), abs=60)
        assert not folder.finished
        folder.finish(FIGURES)
    assert not folder.is_held
    assert folder.finished and folder.metrics == FIGURES
    assert read_progress(folder.root) == Progress()
    assert not (folder.root / "progress.json").exists()


@pytest.mark.parametrize(
    "text", ["", "[1]", "5", '{"image": 3}', '{"image": {}, "map": []}', "[" * 100_000, "{"]
)
def test_a_damaged_record_of_inputs_is_none(text: str, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.inputs is None
    inputs = {"image": {"caf\udce9": "hash"}, "truth mask": {}}
    folder.note_inputs(inputs)
    assert folder.inputs == inputs
    (tmp_path / "inputs.json").write_text(text)
    assert folder.inputs is None


def test_only_a_file_can_be_locked(tmp_path: Path) -> None:
    assert not is_locked(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        assert not is_locked(tmp_path / "pipe"), "opening it would wait for ever"
