"""From logits of regions to classes of regions and images."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anomalyncd.config import FusionConfig, TrainConfig
from anomalyncd.inference.classify import assign, classify, novel_probabilities
from anomalyncd.training import augmentation
from anomalyncd.types import Regions
from tests.helpers.training import drawn_regions, small_model

# Two regions of one image with different classes, and one region of another image.
PROBABILITIES = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.1, 0.2, 0.7]])


def regions(longer: int = 1024, scale: int = 1) -> Regions:
    """Of two images `longer` pixels wide; areas as at 1,024, times scale²."""
    return Regions(
        images=np.zeros((3, 1, 1, 3), np.uint8),
        masks=np.zeros((3, 1, 1), np.uint8),
        image_index=np.array([0, 0, 1]),
        boxes=np.zeros((3, 4), np.int64),
        areas=np.array([400, 900, 100]) * scale**2,
        scores=np.array([0.9, 0.2, 0.5]),
        image_sizes=np.array([[longer // 2, longer], [longer, longer // 4]]),
    )


def image_confidence(config: FusionConfig, of: Regions) -> float:
    """Of the image with two regions, in class 0."""
    found = assign(PROBABILITIES, of, config)
    first = float(found.image_confidence[0])
    return first if found.image_class[0] == 0 else 1 - first


def weighted(log_weights: list[float]) -> float:
    weights = np.exp(log_weights) / np.exp(log_weights).sum()
    return float(weights @ PROBABILITIES[:2, 0])


def test_regions_weigh_by_the_root_of_their_area() -> None:
    config = FusionConfig(temperature=10)
    assert image_confidence(config, regions()) == pytest.approx(weighted([2, 3]))


@pytest.mark.parametrize(("longer", "scale"), [(1024, 1), (2048, 2), (512, 0.5)])
def test_relative_areas_do_not_depend_on_the_resolution(longer: int, scale: int) -> None:
    config = FusionConfig(temperature=10, area_unit="relative")
    assert image_confidence(config, regions(longer, scale)) == pytest.approx(weighted([2, 3]))


def test_areas_in_pixels_depend_on_the_resolution() -> None:
    config = FusionConfig(temperature=10, area_unit="pixels")
    assert image_confidence(config, regions(2048, 2)) == pytest.approx(weighted([4, 6]))


def test_regions_may_weigh_by_score_or_alike() -> None:
    by_score = FusionConfig(weighting="score")
    assert image_confidence(by_score, regions()) == pytest.approx(weighted([0.9, 0.2]))
    alike = FusionConfig(weighting="average")
    assert image_confidence(alike, regions()) == pytest.approx(0.55)


def test_the_likeliest_class_is_found_with_its_probability() -> None:
    of = regions()
    found = assign(PROBABILITIES, of, FusionConfig())
    assert found.region_class.tolist() == [0, 1, 2]
    assert found.region_confidence.tolist() == [0.9, 0.8, 0.7]
    assert found.image_class[1] == 2
    assert found.image_confidence[1] == pytest.approx(0.7)
    assert of.areas.tolist() == [400, 900, 100], "regions are only read"


def test_every_head_gives_a_distribution_over_novel_classes() -> None:
    """More regions than go through at once, in their order, from their centre crops."""
    model, drawn = small_model(n_base=2, n_novel=3), drawn_regions(65, seed=0)
    found = classify(model, drawn, temperature=0.2).probabilities
    images, masks = torch.from_numpy(drawn.images), torch.from_numpy(drawn.masks)
    x, mask = augmentation.evaluation_view(images, masks, model.image_size, model.mean, model.std)
    with torch.no_grad():
        logits = model.heads.classify(model(x, mask)).double()
    expected = (logits[..., 2:] / 0.2).softmax(-1)
    assert found.shape == (2, 65, 3)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_the_default_temperature_is_that_of_the_settings() -> None:
    model, drawn = small_model(), drawn_regions(3, seed=0)
    expected = classify(model, drawn, temperature=TrainConfig().student_temperature)
    np.testing.assert_array_equal(classify(model, drawn).probabilities, expected.probabilities)


def test_base_classes_are_left_out_and_the_temperature_sharpens() -> None:
    logits = torch.tensor([[5.0, 0.0, 0.1]])
    expected = [1 / (1 + np.e), np.e / (1 + np.e)]
    assert novel_probabilities(logits, 1)[0].tolist() == pytest.approx(expected)
    cooler = novel_probabilities(logits, 1, temperature=0.05)
    assert cooler[0, 1] == pytest.approx(np.e**2 / (1 + np.e**2))
