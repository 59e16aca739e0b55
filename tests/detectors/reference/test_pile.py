"""Maps by comparison with a panel of the pile: found defects, single images, the kept file."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from anomalyncd.cli.finished import predict
from anomalyncd.config import BackboneConfig, ReferenceDetectorConfig
from anomalyncd.detectors.reference import LearnedReference, ReferenceDetector
from anomalyncd.detectors.reference.pile import Pile
from anomalyncd.errors import InputError
from anomalyncd.models import patch_features
from anomalyncd.prediction.classifier import load
from anomalyncd.storage.tensors import load_tensors
from anomalyncd.types import Dataset, Sample
from tests.helpers.runs import run, table
from tests.helpers.settings import SMALL
from tests.helpers.tampering import Change, tamper

CPU = torch.device("cpu")
CONFIG = ReferenceDetectorConfig(
    backbone=BackboneConfig("embedded", image_size=96), map_size=48, panel=9
)
DEFECTS = (3, 8, 13)  # of 18 images


def photograph(seed: int, defect: bool) -> NDArray[np.uint8]:
    """A striped tile; the defect is a bright smooth patch."""
    rng = np.random.default_rng(seed)
    stripes = 90 + 40 * np.sin(np.arange(96) / 3 + rng.uniform(0, 1))
    pixels = stripes[None, :, None] + rng.normal(0, 6, (96, 96, 3))
    if defect:
        pixels[32:64, 48:80] = 220
    return pixels.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pile")
    for i in range(18):
        Image.fromarray(photograph(i, i in DEFECTS)).save(root / f"{i:02}.png")
    return root


@pytest.fixture(scope="module")
def dataset(photographs: Path) -> Dataset:
    return Dataset(tuple(Sample(p.stem, p) for p in sorted(photographs.iterdir())), None)


@pytest.fixture(scope="module")
def learned(dataset: Dataset) -> tuple[ReferenceDetector, list[NDArray]]:
    detector = ReferenceDetector(CONFIG, CPU)
    return detector, list(detector.maps(dataset))


def test_defects_stand_out_from_the_rest_of_the_pile_and_in_their_place(
    learned: tuple[ReferenceDetector, list[NDArray]],
) -> None:
    maps = np.array(learned[1])
    peaks = maps.max((1, 2))
    defective = np.isin(np.arange(18), DEFECTS)
    assert peaks[defective].min() > 1.1 * peaks[~defective].max()
    for scores in maps[defective]:
        y, x = np.unravel_index(scores.argmax(), scores.shape)
        assert 14 <= y <= 34 and 22 <= x <= 42, "half the size of the image: 16 to 32, 24 to 40"


def test_an_image_is_scored_alike_alone_and_by_the_kept_file(
    dataset: Dataset, learned: tuple[ReferenceDetector, list[NDArray]], tmp_path: Path
) -> None:
    """Also one of the panel, which must not be compared with itself."""
    detector, maps = learned
    detector.save(tmp_path / "kept.safetensors")
    kept = LearnedReference(tmp_path / "kept.safetensors", CPU)
    for i in (0, 3, 7):
        (alone,) = kept.maps(replace(dataset, samples=dataset.samples[i : i + 1]))
        assert np.array_equal(alone, maps[i])


def test_too_few_images_are_refused_with_both_ways_out(dataset: Dataset) -> None:
    few = replace(dataset, samples=dataset.samples[:4])
    with pytest.raises(InputError, match=r"found 4, expected at least 5; .*dataset\.good=FOLDER"):
        next(ReferenceDetector(CONFIG, CPU).maps(few))


def test_equal_images_are_refused(tmp_path: Path) -> None:
    for i in range(6):
        Image.fromarray(photograph(1, False)).save(tmp_path / f"{i}.png")
    samples = tuple(Sample(p.stem, p) for p in sorted(tmp_path.iterdir()))
    with pytest.raises(InputError, match="all images are equal"):
        next(ReferenceDetector(CONFIG, CPU).maps(Dataset(samples, None)))


def with_infinity(tensors: dict[str, torch.Tensor], header: dict[str, str]) -> None:
    tensors["patches"][0, 0, 0] = torch.inf


def with_fewer_images(tensors: dict[str, torch.Tensor], header: dict[str, str]) -> None:
    tensors["patches"] = tensors["patches"][:-1].contiguous()


def with_narrow_patches(tensors: dict[str, torch.Tensor], header: dict[str, str]) -> None:
    tensors["patches"] = tensors["patches"][..., :-1].contiguous()


def with_one_more(tensors: dict[str, torch.Tensor], header: dict[str, str]) -> None:
    tensors["other"] = torch.zeros(3)


def with_a_path_as_member(tensors: dict[str, torch.Tensor], header: dict[str, str]) -> None:
    header["anomalyncd"] = header["anomalyncd"].replace('"members": ["', '"members": ["../')


def with_an_odd_size(tensors: dict[str, torch.Tensor], header: dict[str, str]) -> None:
    header["anomalyncd"] = header["anomalyncd"].replace(
        '"image_size": 96, "m', '"image_size": 0, "m'
    )


def of_another_kind(tensors: dict[str, torch.Tensor], header: dict[str, str]) -> None:
    header["anomalyncd"] = header["anomalyncd"].replace('"pile"', '"heap"')


@pytest.mark.parametrize(
    "change",
    [
        *(with_infinity, with_fewer_images, with_narrow_patches, with_one_more),
        *(with_a_path_as_member, with_an_odd_size, of_another_kind),
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


def test_the_kept_file_names_its_weights_by_an_absolute_path(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A prediction may start in another folder."""
    pile = Pile.learn(CONFIG, [sample.image for sample in dataset.samples[:5]], CPU)
    backbone = replace(pile.config.backbone, checkpoint="weights.safetensors")
    pile.config = replace(pile.config, backbone=backbone)
    monkeypatch.chdir(tmp_path)
    pile.save(Path("kept.safetensors"))
    _, header = load_tensors(Path("kept.safetensors"))
    stored = header["pile"]["config"]["backbone"]["checkpoint"]
    assert stored == str(tmp_path.resolve() / "weights.safetensors")


def test_other_weights_are_refused(
    learned: tuple[ReferenceDetector, list[NDArray]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    learned[0].save(tmp_path / "kept.safetensors")
    create = patch_features.create_tokens

    def changed(*args: Any) -> patch_features.PatchFeatures:
        features = create(*args)
        features.weights_hash = "of others"
        return features

    monkeypatch.setattr(patch_features, "create_tokens", changed)
    with pytest.raises(InputError, match="embedded: its weights are not those that"):
        LearnedReference(tmp_path / "kept.safetensors", CPU)


def test_a_run_on_a_pile_classifies_one_of_its_images_alone_as_it_did(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = [o for o in SMALL if not o.startswith(("dataset.", "base.", "detector="))]
    folder = run(
        [
            *("dataset=folder", f"dataset.path={photographs}", "base=none", "backbone=embedded"),
            *("detector=reference", "detector.backbone.image_size=96", "detector.panel=9"),
            *("detector.map_size=48", "mebin.erosion=2", "novel_classes=2", *own),
            f"output_root={tmp_path}",
        ]
    ).folder
    rows = table(folder / "predictions.csv")
    for row in (rows[0], rows[DEFECTS[0]]):
        (found,) = load(folder).predict([photographs / f"{row['id']}.png"])
        assert str(found.class_id) == row["class"]
        assert found.confidence == pytest.approx(float(row["confidence"]), abs=1e-4)

    output = tmp_path / "new"
    photograph = photographs / f"{DEFECTS[1]:02}.png"
    arguments = [str(folder), str(photograph), "--output", str(output)]
    monkeypatch.setattr(sys, "argv", ["anomalyncd predict", *arguments])
    assert predict.main() == 0
    (row,) = table(output / "predictions.csv")
    assert (row["id"], row["class"]) == (photograph.stem, rows[DEFECTS[1]]["class"])
