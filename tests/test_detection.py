"""Maps are judged against labels and truth masks, once for all runs on them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from anomalyncd import detection, maps
from anomalyncd.cache import Cache
from anomalyncd.detectors.files import FilesDetector
from anomalyncd.types import Dataset, Labels, Sample


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """A good image and a scratched one, whose maps say so."""
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


def judge(root: Path, dataset: Dataset) -> dict[str, float | None]:
    cache = Cache(root / "cache")
    detector = FilesDetector(str(root / "maps"), "c")
    stored = maps.collect(detector, dataset, "c", cache, settings={})
    return detection.judge_maps(dataset, stored, cache)


def test_perfect_maps_are_judged_so(tmp_path: Path, dataset: Dataset) -> None:
    assert judge(tmp_path, dataset) == pytest.approx(
        {"image_auroc": 1, "pixel_auroc": 1, "aupro": 1}, abs=1e-3
    )


def test_maps_are_judged_once(
    tmp_path: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = judge(tmp_path, dataset)
    monkeypatch.delattr(detection, "_judge_maps")
    assert judge(tmp_path, dataset) == first


@pytest.mark.parametrize("changed", ["map", "mask"])
def test_another_map_or_mask_is_judged_anew(tmp_path: Path, dataset: Dataset, changed: str) -> None:
    first = judge(tmp_path, dataset)
    elsewhere = np.zeros((32, 32), np.uint8)
    elsewhere[24:, :8] = 255
    cv2.imwrite(str(tmp_path / f"{changed}s" / "scratch" / "1.png"), elsewhere)
    second = judge(tmp_path, dataset)
    assert first["pixel_auroc"] is not None and second["pixel_auroc"] is not None
    assert second["pixel_auroc"] < 0.9 < first["pixel_auroc"]
