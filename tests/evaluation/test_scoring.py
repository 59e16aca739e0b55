"""Labels meet predictions once: one matching for scores and names, the true classes of regions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomalyncd.evaluation.scoring import evaluate
from anomalyncd.inference.classify import Predictions
from anomalyncd.types import UNLABELLED, Dataset, Labels, Regions, Sample


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


def images(n: int) -> tuple[Sample, ...]:
    return tuple(Sample(f"{i}", Path(f"{i}.png")) for i in range(n))


def test_without_labels_classes_are_numbered_and_nothing_is_scored() -> None:
    regions = one_region_each([(0, 0, 5, 5)] * 2)
    verdict = evaluate(Dataset(images(2), None), regions, found([0, 2]), 3)
    assert verdict.class_names == ("class 0", "class 1", "class 2")
    assert verdict.matching.tolist() == [UNLABELLED] * 3
    assert verdict.scores == verdict.normal_recall == {"image": None, "region": None}
    assert verdict.region_targets is None


def test_where_no_image_has_a_label_nothing_is_scored() -> None:
    labels = Labels(("good", "hole"), np.array([UNLABELLED] * 2), normal=0)
    regions = one_region_each([(0, 0, 5, 5)] * 2)
    verdict = evaluate(Dataset(images(2), labels), regions, found([0, 1]), 2)
    assert verdict.scores == {"image": None, "region": None}
    assert verdict.class_names == ("class 0", "class 1")


def test_images_and_regions_are_scored_apart_and_classes_have_the_names_of_images() -> None:
    """Image 3 has no label; its classes, which no other has, count nowhere."""
    labels = Labels(("good", "hole"), np.array([0, 0, 1, UNLABELLED]), normal=0)
    regions = one_region_each([(0, 0, 5, 5)] * 4)
    sure = np.ones(4)
    predictions = Predictions(np.array([0, 1, 1, 2]), sure, np.array([1, 1, 0, 2]), sure)
    verdict = evaluate(Dataset(images(4), labels), regions, predictions, 3)
    assert verdict.scores["image"] is not None and verdict.scores["region"] is not None
    assert verdict.scores["image"].f1 == 1
    assert verdict.scores["region"].f1 == pytest.approx(2 / 3)
    assert verdict.class_names == ("hole", "good", "class 2")
    assert verdict.matching.tolist() == [1, 0, UNLABELLED]
    assert verdict.normal_recall == {"image": 1, "region": 0.5}
    assert verdict.region_targets is not None
    assert verdict.region_targets.tolist() == [0, 0, 1, UNLABELLED]


@pytest.mark.parametrize("n_novel", [2, 3, 5])
def test_fewer_or_more_classes_may_be_found_than_there_are(n_novel: int) -> None:
    labels = Labels(("good", "hole", "dent"), np.array([0, 0, 1, 1, 2]), normal=0)
    regions = one_region_each([(0, 0, 5, 5)] * 5)
    classes = [0, 0, 1, 1, n_novel - 1]
    verdict = evaluate(Dataset(images(5), labels), regions, found(classes), n_novel)
    names = ["good", "hole", *(f"class {number}" for number in range(2, n_novel))]
    if n_novel > 2:
        names[-1] = "dent"
    assert list(verdict.class_names) == names
    assert len(verdict.matching) == n_novel
