"""Adding a detector: one file, no change to the package."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from anomalyncd import detectors
from anomalyncd.config import CustomDetectorConfig
from anomalyncd.errors import InputError
from tests.test_run import overrides, photographs, run, shared_cache  # noqa: F401

OWN_DETECTOR = '''
"""The difference of an image from the median of all."""
import numpy as np
from anomalyncd.cache import digest_files
from anomalyncd.images import read_image


class MedianDifference:
    def __init__(self, power: float = 1.0) -> None:
        self.power = power

    def key(self, dataset):
        return self.power, digest_files(sample.image for sample in dataset.samples)

    def maps(self, dataset):
        grey = [read_image(sample.image).mean(axis=2) for sample in dataset.samples]
        usual = np.median(grey, axis=0)
        for image in grey:
            yield np.abs(image - usual) ** self.power
'''


@pytest.fixture
def own_detector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    assert len(OWN_DETECTOR.splitlines()) < 30
    (tmp_path / "median_difference.py").write_text(OWN_DETECTOR)
    monkeypatch.syspath_prepend(tmp_path)
    return "median_difference:MedianDifference"


def test_a_detector_of_ones_own_runs(
    own_detector: str,
    photographs: Path,  # noqa: F811
    overrides: list[str],  # noqa: F811
) -> None:
    general = [o for o in overrides if not o.startswith(("dataset.", "base.", "detector="))]
    outcome = run(
        [
            *("dataset=folder", f"dataset.path={photographs / 'photos'}", "novel_classes=2"),
            *("detector=custom", f"detector.target={own_detector}", "+detector.options.power=2.0"),
            *("backbone=vit_tiny_untrained", *general),
        ]
    )
    assert outcome.metrics["detector"] == "MedianDifference"
    assert outcome.metrics["counts"]["images_without_defect_found"] < 6
    cache = next(o for o in overrides if o.startswith("cache_root=")).partition("=")[2]
    notes = [json.loads(path.read_text()) for path in Path(cache).glob("maps-*/maps.json")]
    assert any(note["settings"].get("options") == {"power": 2.0} for note in notes)


@pytest.mark.parametrize(
    "target", ["nowhere:X", "median_difference:X", "median_difference", ":", "os:getcwd"]
)
def test_a_wrong_target_is_told(own_detector: str, target: str, tmp_path: Path) -> None:
    config = CustomDetectorConfig(target=target, options={"speed": 1})
    with pytest.raises(InputError, match=rf"detector\.target={target}"):
        detectors.create(config, "c", torch.device("cpu"), tmp_path)
