"""New images: what is made of their maps, regions and probabilities, with a tiny finished model."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from anomalyncd.config import (
    AttentionConfig,
    BackboneConfig,
    FusionConfig,
    MebinConfig,
    MuscDetectorConfig,
    RegionsConfig,
    TrainConfig,
)
from anomalyncd.detectors.musc import MuscDetector
from anomalyncd.inference.classify import Classified
from anomalyncd.models import backbone, checkpoint, model
from anomalyncd.prediction import classifier as classifying
from anomalyncd.prediction.classifier import Classifier
from anomalyncd.storage import run_record
from anomalyncd.storage.cache import Cache
from anomalyncd.types import Box, Regions

TINY = BackboneConfig("vit_tiny_patch16_224", pretrained=False, image_size=32)
NAMES = ("good", "dent", "class 2")


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """The folder of a run whose maps reached from 0 to 4 before they became 8-bit."""
    train = TrainConfig(hidden=8, bottleneck=4, heads=2, student_temperature=0.2)
    stock = backbone.build(TINY)
    network = model.build(stock, AttentionConfig(), train, n_base=1, n_novel=3)
    metadata = checkpoint.ModelMetadata(
        backbone=TINY,
        backbone_source=stock.source,
        attention=AttentionConfig(),
        mebin=MebinConfig(erosion=0, search_range=[0.0, 255.0]),
        regions=RegionsConfig(),
        fusion=FusionConfig(temperature=10),
        train=train,
        raw_range=(0.0, 4.0),
        head=1,
        base_classes=("cut",),
        class_names=NAMES,
        frozen_hash=checkpoint.frozen_hash(stock),
    )
    checkpoint.save_model(tmp_path / "model.safetensors", network, metadata)
    return tmp_path


def picture() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (60, 80, 3)).astype(np.uint8)


def two_defects(level: float) -> NDArray[np.float32]:
    """A larger one of this level, and a smaller one of three quarters of it."""
    scores = np.zeros((60, 80), np.float32)
    scores[10:34, 5:29] = level
    scores[40:48, 60:68] = 0.75 * level
    return scores


@pytest.mark.parametrize("level", [4.0, 2.0])
def test_maps_of_new_images_are_scaled_as_the_runs_were(finished: Path, level: float) -> None:
    """Not over their own range: a faint map would look as anomalous as any other."""
    (found,) = Classifier(finished, device="cpu").predict([picture()], [two_defects(level)])
    scores = [region.anomaly_score for region in found.regions]
    assert scores == pytest.approx([level / 4, 0.75 * level / 4], rel=0.15)  # bicubic overshoot


def test_each_region_is_reported_as_it_was_found(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []

    def classified(network: Any, regions: Regions, *, temperature: float) -> Classified:
        given.append((len(regions), network.forward_batch, temperature))
        own = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])
        # the second head is the one that is used
        return Classified(np.zeros((2, 1), np.float32), np.stack([own[:, ::-1], own]))

    monkeypatch.setattr(classifying, "classify", classified)
    classifier = Classifier(finished, device="cpu", forward_batch=3)
    assert classifier.class_names == NAMES
    (found,) = classifier.predict([picture()], [two_defects(4)])
    assert given == [(2, 3, 0.2)]
    first, second = found.regions
    assert (first.class_id, first.class_name, first.confidence) == (0, "good", 0.7)
    assert (second.class_id, second.class_name, second.confidence) == (2, "class 2", 0.6)
    assert (first.area, second.area) == (24 * 24, 8 * 8)
    assert first.anomaly_score > 0.95 > 0.9 > second.anomaly_score > 0.7
    assert (first.box, second.box) == (Box(4, 9, 30, 35), Box(56, 36, 72, 52))
    # the larger has √576 / 10 − √64 / 10 = 1.6 more in the exponent
    share = np.exp(1.6) / (1 + np.exp(1.6))
    assert (found.class_id, found.class_name) == (0, "good")
    assert found.confidence == pytest.approx(0.7 * share + 0.1 * (1 - share))


def test_maps_of_new_images_that_are_compared_with_each_other_are_warned_about(
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings = SimpleNamespace(detector_config=MuscDetectorConfig(backbone=None))
    monkeypatch.setattr(run_record, "read_settings", lambda run: settings)
    detector = Classifier(finished, device="cpu").own_detector(Cache(tmp_path))
    assert isinstance(detector, MuscDetector)
    assert "compares the new images with each other" in caplog.text
