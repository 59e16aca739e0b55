"""What the stages of a run hand to each other, one at a time."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from anomalyncd import experiment
from anomalyncd.errors import InputError
from anomalyncd.results import run_results
from anomalyncd.runtime.distributed import ALONE
from anomalyncd.storage.run_folder import RunFolder
from anomalyncd.training import progress, train
from anomalyncd.training.state import TrainingState
from tests.helpers.runs import composed
from tests.helpers.training import drawn_regions, small_model, training_set


def prepared(fingerprint: list[str], frozen_hash: str) -> Any:
    return SimpleNamespace(data=SimpleNamespace(fingerprint=fingerprint), frozen_hash=frozen_hash)


def test_a_killed_run_resumes_on_the_same_regions_and_weights_only(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    known = experiment._state(folder, prepared(["regions"], "weights"))
    assert known.path == tmp_path / "training.safetensors"
    same = experiment._state(folder, prepared(["regions"], "weights"))
    assert same.fingerprint == known.fingerprint
    for other in (prepared(["others"], "weights"), prepared(["regions"], "others")):
        assert experiment._state(folder, other).fingerprint != known.fingerprint


@pytest.mark.parametrize(("n_novel", "fits"), [(2, True), (5, True), (6, False)])
def test_there_are_as_many_regions_as_classes_to_find(n_novel: int, fits: bool) -> None:
    cropped: Any = SimpleNamespace(counts=np.array([1, 0, 2]), regions=drawn_regions(5, 0))
    with nullcontext() if fits else pytest.raises(InputError, match=r"only 5 regions .* 3 images"):
        experiment._require_enough_regions(cropped, n_novel)


def test_the_model_knows_its_weights_file_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    done: Any = SimpleNamespace(
        config=composed(["backbone.checkpoint=../w.safetensors", "mebin.method=adaptive"]),
        source="file",
        cropped=SimpleNamespace(search_range=(3.0, 200.0), gate=90.0),
        maps=SimpleNamespace(raw_range=(0.5, 4.0)),
        head=1,
        base_classes=("dent",),
        evaluation=SimpleNamespace(class_names=("good", "class 1")),
        frozen_hash="hash",
    )
    metadata = run_results.metadata_of(done)
    assert metadata.backbone.checkpoint == str(tmp_path / "w.safetensors")
    assert (metadata.mebin.search_range, metadata.mebin.gate) == ([3.0, 200.0], 90.0)
    assert (metadata.raw_range, metadata.head) == ((0.5, 4.0), 1)
    assert metadata.backbone.image_size == done.config.backbone.image_size


class Recorder:
    """A tracker, and a run's folder, that remember what is reported to them."""

    def __init__(self) -> None:
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.progress: list[dict[str, Any]] = []

    def log(self, figures: dict[str, float], step: int) -> None:
        self.logged.append((step, figures))

    def note_progress(self, **progress: Any) -> None:
        self.progress.append(progress)


@pytest.mark.parametrize("stop_after", [0, 2])
def test_training_is_reported_to_the_tracker_and_to_other_processes(
    stop_after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when it resumes: the time left does not count what an earlier process has done."""
    seconds = iter(range(10_000))
    monkeypatch.setattr(progress.time, "perf_counter", lambda: float(next(seconds)))
    config = composed(
        [
            *("train.epochs=4", "train.batch_size=8", "train.features=cached"),
            *("train.cached_views=3", "seed=5", "quiet=true"),
        ]
    )

    def trained() -> tuple[Recorder, list[list[float]]]:
        reported, network = Recorder(), small_model()
        given: Any = SimpleNamespace(network=network, data=training_set())
        state = TrainingState(tmp_path / "state", "data")
        world: Any = ALONE
        recorder: Any = reported
        return reported, experiment._train(config, given, state, recorder, recorder, world)

    if stop_after:
        log = Recorder.log

        def stops(recorder: Recorder, figures: dict[str, float], step: int) -> None:
            if step == stop_after:
                raise KeyboardInterrupt
            log(recorder, figures, step)

        with monkeypatch.context() as patch:
            patch.setattr(Recorder, "log", stops)
            patch.setattr(TrainingState, "is_due", True)
            with pytest.raises(KeyboardInterrupt):
                trained()
    first = stop_after + 1 if stop_after else 0  # the last epoch reported had been kept
    reported, history = trained()
    assert [step for step, _ in reported.logged] == list(range(first, 4))
    for step, figures in reported.logged:
        assert list(figures) == list(train.TERMS)
        assert list(figures.values()) == history[step][: len(train.TERMS)]
    views = [p for p in reported.progress if p["unit"] == "view"]
    epochs = [p for p in reported.progress if p["unit"] == "epoch"]
    assert [p["done"] for p in views] == ([] if stop_after else [48])
    assert [p["done"] for p in epochs] == list(range(first + 1, 5))
    assert {p["total"] for p in epochs} == {4} and {p["stage"] for p in epochs} == {"train"}
    assert [p["seconds_left"] for p in epochs] == [float(4 - p["done"]) for p in epochs]


def test_scores_are_tracked_by_their_level() -> None:
    scores = {"image": {"nmi": 0.5, "f1": 0.25}, "region": None}
    assert experiment._flat(scores) == {"image/nmi": 0.5, "image/f1": 0.25}


@pytest.mark.parametrize(("found", "warns"), [(0, True), (4, True), (5, False), (100, False)])
def test_maps_that_find_next_to_nothing_give_a_warning(found: int, warns: bool) -> None:
    counts = np.zeros(100, np.int64)
    counts[:found] = 2
    warnings = run_results.map_caveats(counts)
    assert bool(warnings) == warns
    if warns:
        assert f"only {found} of 100 images" in warnings[0]
