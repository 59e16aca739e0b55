"""Maps are evaluated against labels and truth masks, once for all runs on them."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from anomalyncd.detectors import map_store
from anomalyncd.detectors.files import FilesDetector
from anomalyncd.evaluation import map_quality
from anomalyncd.storage.cache import Cache
from anomalyncd.types import UNLABELLED, Dataset, Labels, Sample


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """A good image and a scratched one, with maps that show the scratch."""
    samples = []
    for number, name in enumerate(("good/0", "scratch/1")):
        defect = np.zeros((32, 32), np.uint8)
        defect[8:16, 8:24] = 255 * number
        for folder in ("images", "masks", "maps"):
            path = tmp_path / folder / f"{name}.png"
            path.parent.mkdir(parents=True)
            cv2.imwrite(str(path), defect // 2 if folder == "maps" else defect)
        mask = tmp_path / "masks" / f"{name}.png" if number else None
        samples.append(Sample(name, tmp_path / "images" / f"{name}.png", mask))
    return Dataset(tuple(samples), Labels(("good", "scratch"), np.array([0, 1]), normal=0))


def quality_of(root: Path, dataset: Dataset) -> dict[str, float | None]:
    cache = Cache(root / "cache")
    detector = FilesDetector(str(root / "maps"), "c")
    stored = map_store.collect(detector, dataset, "c", cache, settings={})
    return map_quality.evaluate_maps(dataset, stored, cache)


def test_perfect_maps_have_perfect_figures(tmp_path: Path, dataset: Dataset) -> None:
    assert quality_of(tmp_path, dataset) == pytest.approx(
        {"image_auroc": 1, "pixel_auroc": 1, "aupro": 1}, abs=1e-3
    )


def test_maps_are_evaluated_once(
    tmp_path: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = quality_of(tmp_path, dataset)
    monkeypatch.delattr(map_quality, "_compute_quality")
    assert quality_of(tmp_path, dataset) == first


@pytest.mark.parametrize(
    ("targets", "expected"), [([1, 0], 0.0), ([UNLABELLED, 1], None), ([0, UNLABELLED], None)]
)
def test_other_labels_of_the_same_maps_are_evaluated_again(
    tmp_path: Path, dataset: Dataset, targets: list[int], expected: float | None
) -> None:
    assert quality_of(tmp_path, dataset)["image_auroc"] == 1
    labels = Labels(("good", "scratch"), np.array(targets), normal=0)
    assert quality_of(tmp_path, Dataset(dataset.samples, labels))["image_auroc"] == expected


@pytest.mark.parametrize("changed", ["nothing", "versions", "which image the mask is of"])
def test_what_figures_follow_from_is_known(
    changed: str, tmp_path: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr(map_quality, "_compute_quality", lambda *_: calls.append(1) or {})
    good, scratch = dataset.samples
    other = replace(good, id="good/0", truth_mask=scratch.truth_mask)
    labels = Labels(("good", "scratch"), np.array([1, 1]), normal=0)
    quality_of(tmp_path, Dataset((good, scratch), labels))
    if changed == "versions":
        monkeypatch.setattr(map_quality, "versions", lambda: {"numpy": "another"})
    elif changed != "nothing":
        good, scratch = other, replace(scratch, truth_mask=None)
    quality_of(tmp_path, Dataset((good, scratch), labels))
    assert len(calls) == (1 if changed == "nothing" else 2)


@pytest.mark.parametrize("changed", ["map", "mask"])
def test_another_map_or_mask_is_evaluated_again(
    tmp_path: Path, dataset: Dataset, changed: str
) -> None:
    first = quality_of(tmp_path, dataset)
    elsewhere = np.zeros((32, 32), np.uint8)
    elsewhere[24:, :8] = 255
    cv2.imwrite(str(tmp_path / f"{changed}s" / "scratch" / "1.png"), elsewhere)
    second = quality_of(tmp_path, dataset)
    assert first["pixel_auroc"] is not None and second["pixel_auroc"] is not None
    assert second["pixel_auroc"] < 0.9 < first["pixel_auroc"]


@pytest.mark.parametrize(("covered", "defective"), [(1, False), (7, False), (8, True), (16, True)])
def test_a_pixel_of_the_map_is_defective_if_the_mask_covers_half_of_it(
    tmp_path: Path, covered: int, defective: bool
) -> None:
    """The mask is four times as fine as the map: 16 of its pixels lie under one of the map's."""
    mask = np.zeros((32, 24), np.uint8)
    mask[8:12, 8:12].flat[:covered] = 255
    mask[20:24, 20:24] = 255
    scores = np.zeros((8, 6), np.uint8)
    scores[2, 2], scores[5, 5] = 100, 200
    for place, pixels in {"images/1": mask, "masks/1": mask, "maps/hole/1": scores}.items():
        path = tmp_path / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), pixels)
    sample = Sample("hole/1", tmp_path / "images" / "1.png", tmp_path / "masks" / "1.png")
    labels = Labels(("good", "hole"), np.array([1]), normal=0)
    found = quality_of(tmp_path, Dataset((sample,), labels))
    # if (2, 2) is defective both score above all others; else only (5, 5), which still does
    assert found["pixel_auroc"] == 1
    scores[2, 2] = 0  # a miss if the pixel counts as defective, else rightly low
    cv2.imwrite(str(tmp_path / "maps" / "hole" / "1.png"), scores)
    found = quality_of(tmp_path, Dataset((sample,), labels))
    assert found["pixel_auroc"] == pytest.approx(0.75 if defective else 1)


def test_unscored_images_and_defects_without_a_mask_are_left_out(
    tmp_path: Path, dataset: Dataset
) -> None:
    """The third image is not scored, the others have defects that no mask shows."""
    maps = {"combined/2": 77, "scratch/3": 0, "scratch/4": 200}
    for name, level in maps.items():
        wrong = np.full((32, 32), level, np.uint8)
        path = tmp_path / "maps" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), wrong)
    image = dataset.samples[0].image
    samples = (*dataset.samples, *(Sample(name, image) for name in maps))
    targets = np.array([0, 1, UNLABELLED, 1, 1])
    found = quality_of(tmp_path, Dataset(samples, Labels(("good", "scratch"), targets, normal=0)))
    assert found["pixel_auroc"] == 1
    assert found["image_auroc"] == pytest.approx(2.5 / 3)  # one map ties with the good one's


def test_an_image_is_as_anomalous_as_its_highest_score(tmp_path: Path, dataset: Dataset) -> None:
    """Not as the mean of its map: the good image is brighter all over."""
    scores = np.full((32, 32), 60, np.uint8)
    cv2.imwrite(str(tmp_path / "maps" / "good" / "0.png"), scores)
    scores[:] = 0
    scores[10, 10] = 70
    cv2.imwrite(str(tmp_path / "maps" / "scratch" / "1.png"), scores)
    assert quality_of(tmp_path, dataset)["image_auroc"] == 1


@pytest.mark.parametrize(("pixels", "size"), [(20_000_000, 256), (200, 10), (241, 10), (242, 11)])
def test_overlaps_are_compared_at_a_size_that_memory_allows(
    pixels: int, size: int, tmp_path: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two images."""
    given = []

    def aupro(maps: Iterable, masks: Iterable, *, size: int) -> float:
        given.append((len(list(maps)), [mask is None for mask in masks], size))
        return 0.5

    monkeypatch.setitem(sys.modules, "anomalyncd.anomalib.aupro", SimpleNamespace(aupro=aupro))
    monkeypatch.setattr(map_quality, "_AUPRO_PIXELS", pixels)
    assert quality_of(tmp_path, dataset)["aupro"] == 0.5
    assert given == [(2, [True, False], size)]


def test_without_labels_or_a_normal_class_nothing_is_evaluated(
    tmp_path: Path, dataset: Dataset
) -> None:
    nothing = {"image_auroc": None, "pixel_auroc": None, "aupro": None}
    labels = Labels(("dent", "scratch"), np.array([0, 1]), normal=None)
    for unknown in (None, labels):
        found = Dataset(dataset.samples, unknown)
        assert quality_of(tmp_path, found) == nothing
        assert map_quality.evaluate_binarization(found, np.array([1, 0])) == {
            "fpr": None,
            "fnr": None,
        }


def test_an_image_with_a_main_element_counts_as_found(dataset: Dataset) -> None:
    targets = np.array([0, 0, 1, UNLABELLED])
    labelled = Dataset(dataset.samples, Labels(("good", "scratch"), targets, normal=0))
    found = map_quality.evaluate_binarization(labelled, np.array([1, 0, 0, 9]))
    assert found == {"fpr": 0.5, "fnr": 1.0}
    assert map_quality.evaluate_binarization(labelled, np.array([0, 0, 1, 0])) == {
        "fpr": 0,
        "fnr": 0,
    }
