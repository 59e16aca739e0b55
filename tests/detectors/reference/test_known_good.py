"""Maps by comparison with known-good photographs: found defects, single images, kept banks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from anomalyncd.config import BackboneConfig, FolderConfig, ReferenceDetectorConfig
from anomalyncd.data import datasets
from anomalyncd.detectors.reference import LearnedReference, ReferenceDetector
from anomalyncd.detectors.reference.photographs import evenly, image_sizes
from anomalyncd.errors import InputError
from anomalyncd.models import patch_features
from anomalyncd.prediction.classifier import load
from anomalyncd.prediction.predict import predict
from anomalyncd.storage.cache import Cache
from anomalyncd.types import Dataset, Sample
from tests.helpers.runs import composed, run, table
from tests.helpers.settings import SMALL
from tests.helpers.tampering import Change, tamper

CPU = torch.device("cpu")
CONFIG = ReferenceDetectorConfig(
    backbone=BackboneConfig("embedded", image_size=96), bank_size=150, map_size=48
)
SPOT = (slice(40, 56), slice(56, 72))  # where the defect is


def photograph(seed: int, defect: bool = False) -> NDArray[np.uint8]:
    """A striped tile under changing light; the defect is a smooth patch."""
    rng = np.random.default_rng(seed)
    stripes = 90 + 40 * np.sin(np.arange(96) / 3 + rng.uniform(0, 6))
    pixels = stripes[None, :, None] + rng.normal(0, 6, (96, 96, 3)) + rng.uniform(-10, 10)
    if defect:
        pixels[SPOT] = 190
    return pixels.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("product")
    for folder, count, defect in (
        ("good", 10, False),
        ("new/good", 6, False),
        ("new/dent", 6, True),
    ):
        (root / folder).mkdir(parents=True)
        for number in range(count):
            seed = 100 * len(folder) + number
            Image.fromarray(photograph(seed, defect)).save(root / folder / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def dataset(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    config = FolderConfig(path=str(photographs / "new"), good=str(photographs / "good"))
    cache = Cache(tmp_path_factory.mktemp("cache"))
    return replace(datasets.load(config, "new", cache), labels=None)


@pytest.fixture(scope="module")
def learned(dataset: Dataset) -> tuple[ReferenceDetector, list[NDArray]]:
    detector = ReferenceDetector(CONFIG, CPU)
    return detector, list(detector.maps(dataset))


def test_defects_stand_out_from_good_photographs_and_in_their_place(
    dataset: Dataset, learned: tuple[ReferenceDetector, list[NDArray]]
) -> None:
    _, maps = learned
    is_defect = np.array([sample.id.startswith("dent") for sample in dataset.samples])
    peaks = np.array([scores.max() for scores in maps])
    assert is_defect.sum() == 6 and len(dataset.train) == 10
    assert peaks[is_defect].min() > 1.2 * peaks[~is_defect].max()
    for scores in np.array(maps)[is_defect]:
        y, x = np.unravel_index(scores.argmax(), scores.shape)
        assert 18 <= y <= 30 and 26 <= x <= 38, "half the size of the image: 20 to 28, 28 to 36"


def test_a_good_photograph_peaks_at_about_1(
    learned: tuple[ReferenceDetector, list[NDArray]], dataset: Dataset
) -> None:
    _, maps = learned
    good = [m.max() for m, s in zip(maps, dataset.samples, strict=True) if s.id[:4] == "good"]
    assert 0.7 < np.median(good) < 1.5


def test_an_image_is_scored_alone(
    dataset: Dataset, learned: tuple[ReferenceDetector, list[NDArray]]
) -> None:
    _, maps = learned
    one = replace(dataset, samples=dataset.samples[4:5])
    (alone,) = ReferenceDetector(CONFIG, CPU).maps(one)
    assert np.array_equal(alone, maps[4])


def test_what_was_learned_is_kept_bit_for_bit(
    dataset: Dataset, learned: tuple[ReferenceDetector, list[NDArray]], tmp_path: Path
) -> None:
    detector, maps = learned
    detector.save(tmp_path / "kept.safetensors")
    kept = LearnedReference(tmp_path / "kept.safetensors", CPU)
    for again, before in zip(kept.maps(replace(dataset, train=())), maps, strict=True):
        assert np.array_equal(again, before)


def test_the_subspace_of_good_photographs_finds_them_too_and_is_kept(
    dataset: Dataset, tmp_path: Path
) -> None:
    detector = ReferenceDetector(replace(CONFIG, comparison="subspace"), CPU)
    maps = list(detector.maps(dataset))
    is_defect = np.array([sample.id.startswith("dent") for sample in dataset.samples])
    peaks = np.array([scores.max() for scores in maps])
    assert peaks[is_defect].min() > peaks[~is_defect].max()
    detector.save(tmp_path / "kept.safetensors")
    kept = LearnedReference(tmp_path / "kept.safetensors", CPU)
    assert all(np.array_equal(a, b) for a, b in zip(kept.maps(dataset), maps, strict=True))


def test_what_was_learned_with_other_weights_is_refused(
    learned: tuple[ReferenceDetector, list[NDArray]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    learned[0].save(tmp_path / "kept.safetensors")
    create = patch_features.create

    def changed(*args: Any) -> patch_features.PatchFeatures:
        features = create(*args)
        features.weights_hash = "of others"
        return features

    monkeypatch.setattr(patch_features, "create", changed)
    with pytest.raises(InputError, match="embedded: its weights are not those that"):
        LearnedReference(tmp_path / "kept.safetensors", CPU)


@pytest.mark.parametrize(
    ("largest", "asked", "sizes"),
    [(96, 512, [96, 48]), (600, 512, [512, 256]), (600, 64, [64, 32]), (20, 512, [32])],
)
def test_small_photographs_are_not_enlarged(
    largest: int, asked: int, sizes: list[int], tmp_path: Path
) -> None:
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path, width in zip(paths, (10, largest, 700), strict=True):
        Image.new("RGB", (width, 10)).save(path)
    backbone = BackboneConfig("embedded", image_size=asked)
    assert image_sizes(backbone, paths, (1.0, 0.5)) == sizes


def test_of_many_good_photographs_some_are_read_from_everywhere() -> None:
    paths = [Path(str(i)) for i in range(10)]
    assert evenly(paths, 4) == [paths[0], paths[2], paths[5], paths[7]]
    assert evenly(paths, 10) == paths


def without_a_peak(tensors: dict[str, torch.Tensor], header: dict[str, str]) -> None:
    header["anomalyncd"] = header["anomalyncd"].replace('"peaks": [', '"peaks": [0.0, ')


def with_another_size(tensors: dict[str, torch.Tensor], header: dict[str, str]) -> None:
    header["anomalyncd"] = header["anomalyncd"].replace("[96, 48]", "[97, 48]")


def with_infinity(tensors: dict[str, torch.Tensor], header: dict[str, str]) -> None:
    tensors["0.patches"][0, 0] = torch.inf


def without_spacing(tensors: dict[str, torch.Tensor], header: dict[str, str]) -> None:
    tensors["0.spacing"][:] = 0


def with_fewer_channels(tensors: dict[str, torch.Tensor], header: dict[str, str]) -> None:
    tensors["1.weight"] = tensors["1.weight"][:-1].contiguous()


def with_whole_numbers(tensors: dict[str, torch.Tensor], header: dict[str, str]) -> None:
    tensors["1.bias"] = tensors["1.bias"].int()


def without_a_tensor(tensors: dict[str, torch.Tensor], header: dict[str, str]) -> None:
    del tensors["1.bias"]


def with_one_more(tensors: dict[str, torch.Tensor], header: dict[str, str]) -> None:
    tensors["2.bias"] = torch.zeros(3)


@pytest.mark.parametrize(
    "change",
    [
        *(without_a_peak, with_another_size, with_infinity, without_spacing, with_fewer_channels),
        *(with_whole_numbers, without_a_tensor, with_one_more),
    ],
)
def test_a_changed_file_is_refused_in_one_line(
    change: Change, learned: tuple[ReferenceDetector, list[NDArray]], tmp_path: Path
) -> None:
    path = tmp_path / "detector.safetensors"
    learned[0].save(path)
    tamper(path, change)
    with pytest.raises(InputError) as refused:
        LearnedReference(path, CPU)
    assert "\n" not in str(refused.value)


def test_the_key_follows_the_settings_and_the_weights(dataset: Dataset) -> None:
    keys = [
        ReferenceDetector(config, CPU).key(dataset)
        for config in (CONFIG, replace(CONFIG, bank_size=99), replace(CONFIG, explained=0.9))
    ]
    assert len({str(key) for key in keys}) == 3


@pytest.mark.parametrize(
    ("good", "message"),
    [("nowhere", "no such folder"), ("empty", "no images; dataset.good"), ("new", "no images")],
)
def test_a_folder_without_good_photographs_is_refused(
    good: str, message: str, photographs: Path, tmp_path: Path
) -> None:
    (photographs / "empty").mkdir(exist_ok=True)
    config = FolderConfig(path=str(photographs / "new"), good=str(photographs / good))
    with pytest.raises(InputError, match=message):
        datasets.load(config, "new", Cache(tmp_path))


@pytest.fixture(scope="module")
def overrides(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    root = tmp_path_factory.mktemp("runs")
    own = [o for o in SMALL if not o.startswith(("dataset.", "base.", "detector="))]
    return [
        *("dataset=folder", f"dataset.path={photographs / 'new'}", "base=none"),
        *(f"dataset.good={photographs / 'good'}", "backbone=embedded", f"output_root={root}"),
        *("detector=reference", "detector.backbone.image_size=96", "detector.bank_size=150"),
        *("detector.map_size=48", "mebin.erosion=2", "novel_classes=2", *own),
    ]


def test_a_run_keeps_its_detector_and_predicts_its_own_images_alike(
    overrides: list[str], photographs: Path, tmp_path: Path
) -> None:
    folder = run(overrides).folder
    own = {row["id"]: row for row in table(folder / "predictions.csv")}
    config = composed(
        [
            *(f"run={folder}", f"path={photographs / 'new'}", f"output={tmp_path / 'p'}"),
            "detector.path=''",
        ],
        "predict",
    )
    predict(config)
    again = table(tmp_path / "p" / "predictions.csv")
    assert [(row["id"], row["class"]) for row in again] == [
        (name, own[name]["class"]) for name in own
    ]

    path = photographs / "new" / "dent" / "0.png"
    (found,) = load(folder).predict([path])
    assert str(found.class_id) == own["dent/0"]["class"]
    assert found.confidence == pytest.approx(float(own["dent/0"]["confidence"]), abs=1e-4)


def test_a_changed_good_photograph_is_another_input(
    overrides: list[str], photographs: Path
) -> None:
    first = run(overrides)
    assert run(overrides).was_finished
    changed = photographs / "good" / "3.png"
    before = changed.read_bytes()
    try:
        Image.fromarray(photograph(7)).save(changed)
        assert not run(overrides).was_finished
    finally:
        changed.write_bytes(before)
    assert first.folder.exists()


def test_an_image_is_named_by_its_sample(tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n")
    good = tmp_path / "good.png"
    Image.fromarray(photograph(1)).save(good)
    dataset = Dataset((Sample("broken", broken),), None, (good, good))
    with pytest.raises(InputError, match=r"broken\.png"):
        list(ReferenceDetector(CONFIG, CPU).maps(dataset))
