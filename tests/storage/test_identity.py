"""What identifies a run: the content of its inputs, and the settings that affect results."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from anomalyncd import detectors
from anomalyncd.config import (
    AnomalibDetectorConfig,
    BackboneConfig,
    DetectorConfig,
    MuscDetectorConfig,
)
from anomalyncd.errors import InputError
from anomalyncd.storage import identity
from anomalyncd.types import Dataset, Sample

CPU = torch.device("cpu")


def of_detector(config: DetectorConfig, tmp_path: Path) -> identity.Digests:
    return detectors.inputs(config, "c", Dataset((Sample("t/a", Path("a.png")),), None))


def test_changes_are_counted_and_the_first_are_named() -> None:
    before = {"image": {"a": "1", "b": "2", "c": "3"}, "truth mask": {"a": "1"}}
    now = {
        "image": {"a": "1", "b": "x", "d": "4", "e": "5", "f": "6", "g": "7"},
        "weights file": {"w\x1b[31m\udce9": "1"},
    }
    assert identity.difference(before, now) == (
        "1 image changed (b), 4 images added (d, e, f, …), 1 image removed (c), "
        "1 truth mask removed (a), 1 weights file added (w\\x1b[31m\\udce9)"
    )
    assert identity.difference(now, now) == ""


def test_options_of_a_detector_are_not_changed() -> None:
    settings = {"path": "x/../y", "options": {"path": "x/../y", "memory_gb": 3}, "memory_gb": 3}
    found = identity.result_settings(settings)
    assert found == {"path": str(Path("y").resolve()), "options": settings["options"]}


def test_a_detectors_weights_file_is_an_input(tmp_path: Path) -> None:
    weights = tmp_path / "w.pth"
    weights.write_bytes(b"1")
    config = MuscDetectorConfig(backbone=BackboneConfig("x", checkpoint=str(weights)))
    first = of_detector(config, tmp_path)
    weights.write_bytes(b"2")
    found = identity.difference(first, of_detector(config, tmp_path))
    assert found == "1 detector's weights file changed (w.pth)"
    weights.unlink()
    with pytest.raises(
        InputError, match=r"no such weights file; set detector\.backbone\.checkpoint"
    ):
        of_detector(config, tmp_path)
    assert of_detector(MuscDetectorConfig(), tmp_path) == {}


def test_pictures_that_an_option_names_are_inputs(tmp_path: Path) -> None:
    textures = tmp_path / "a" / "textures"
    textures.mkdir(parents=True)
    (textures / "1.png").write_bytes(b"1")
    config = AnomalibDetectorConfig(
        model="draem", options={"dtd_dir": str(tmp_path / "a"), "beta": 0.1}
    )
    first = of_detector(config, tmp_path)
    (textures / "2.png").write_bytes(b"2")
    found = identity.difference(first, of_detector(config, tmp_path))
    assert found == "1 training picture added (dtd_dir/textures/2.png)"
