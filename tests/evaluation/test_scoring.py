"""Labels meet predictions once: one matching for scores and names, the true classes of regions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomalyncd.evaluation.scoring import evaluate
from anomalyncd.inference.classify import Predictions
from anomalyncd.types import Dataset, Labels, Regions, Sample


def one_region_each(boxes: list[tuple[int, int, int, int]]) -> Regions:
    n = len(boxes)
    return Regions(
        images=np.zeros((n, 1, 1, 3), np.uint8),
        masks=np.zeros((n, 1, 1), np.uint8),
        image_index=np.arange(n),
        boxes=np.array(boxes),
        areas=np.ones(n, np.int64),
        scores=np.ones(n),
        image_sizes=np.full((n, 2), 10),
    )


def found(classes: list[int]) -> Predictions:
    sure = np.ones(len(classes))
    return Predictions(np.array(classes), sure, np.array(classes), sure)


@pytest.mark.parametrize("classes", [[0, 1, 0, 1], [1, 0, 1, 0]])
def test_on_a_tie_names_and_recall_follow_one_matching(classes: list[int]) -> None:
    """Both ways to match agree on 2 of 4 images; the class called `good` must have the recall."""
    labels = Labels(("good", "hole"), np.array([0, 0, 1, 1]), normal=0)
    samples = tuple(Sample(f"{i}", Path(f"{i}.png")) for i in range(4))
    regions = one_region_each([(0, 0, 5, 5)] * 4)
    verdict = evaluate(Dataset(samples, labels), regions, found(classes), 3, "mask")
    good = verdict.class_names.index("good")
    share = np.mean(np.array(classes)[:2] == good)
    assert verdict.normal_recall["image"] == share
    assert sorted(verdict.class_names) == ["class 2", "good", "hole"]


@pytest.mark.parametrize(("labelled_by", "expected"), [("mask", [1, 0]), ("image", [1, 1])])
def test_a_region_beside_the_defect_is_normal_unless_labelled_as_in_the_release(
    tmp_path: Path, labelled_by: str, expected: list[int]
) -> None:
    truth = np.zeros((10, 10), np.uint8)
    truth[2, 2] = 255
    Image.fromarray(truth).save(tmp_path / "mask.png")
    samples = tuple(Sample(f"{i}", Path(f"{i}.png"), tmp_path / "mask.png") for i in range(2))
    dataset = Dataset(samples, Labels(("good", "hole"), np.array([1, 1]), normal=0))
    regions = one_region_each([(0, 0, 5, 5), (5, 5, 9, 9)])
    verdict = evaluate(dataset, regions, found([0, 1]), 2, labelled_by)
    assert verdict.region_targets is not None
    assert verdict.region_targets.tolist() == expected
    assert verdict.scores["region"] is not None
    assert verdict.scores["region"].f1 == (1.0 if labelled_by == "mask" else 0.5)
