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
from anomalyncd.storage.run_folder import RunFolder
from tests.helpers.runs import composed
from tests.helpers.training import drawn_regions


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
        config=composed(["backbone.checkpoint=../w.safetensors"]),
        source="file",
        cropped=SimpleNamespace(search_range=(3.0, 200.0)),
        maps=SimpleNamespace(raw_range=(0.5, 4.0)),
        head=1,
        base_classes=("dent",),
        evaluation=SimpleNamespace(class_names=("good", "class 1")),
        frozen_hash="hash",
    )
    metadata = run_results.metadata_of(done)
    assert metadata.backbone.checkpoint == str(tmp_path / "w.safetensors")
    assert metadata.mebin.search_range == [3.0, 200.0]
    assert (metadata.raw_range, metadata.head) == ((0.5, 4.0), 1)
    assert metadata.backbone.image_size == done.config.backbone.image_size
