"""Reading each dataset's layout; labels apart from samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomalyncd import catalog
from anomalyncd.cache import Cache
from anomalyncd.config import (
    BaseConfig,
    DatasetConfig,
    FolderBaseConfig,
    FolderConfig,
    MtdConfig,
    MvtecConfig,
)
from anomalyncd.errors import InputError
from anomalyncd.types import UNLABELLED, Dataset


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((2, 2), np.uint8)).save(path)


def load(config: DatasetConfig, category: str = "c") -> Dataset:
    return catalog.load(config, category, Cache(Path("unused")))


def by_id(dataset: Dataset) -> dict[str, str | None]:
    """Each sample's class by its id."""
    assert dataset.labels is not None
    names = [
        None if target == UNLABELLED else dataset.labels.classes[target]
        for target in dataset.labels.targets
    ]
    return dict(zip([sample.id for sample in dataset.samples], names, strict=True))


def test_mvtec(tmp_path: Path) -> None:
    touch(tmp_path, "c/test/good/0.png", "c/test/cut/0.png", "c/test/a hole/0.1.png")
    touch(tmp_path, "c/test/combined/0.png", "c/train/good/7.png", "c/train/good/8.png")
    touch(tmp_path, "c/ground_truth/cut/0_mask.png", "c/ground_truth/a hole/0.1_mask.png")
    (tmp_path / "c/test/empty").mkdir()
    dataset = load(MvtecConfig(path=str(tmp_path), leave_out=["combined"]))
    assert dataset.labels is not None
    assert dataset.labels.classes == ("good", "a hole", "cut")
    assert dataset.labels.normal == 0
    assert by_id(dataset) == {"a hole/0.1": "a hole", "cut/0": "cut", "good/0": "good"}
    masks = {sample.id: sample.truth_mask for sample in dataset.samples}
    assert masks["good/0"] is None
    assert masks["a hole/0.1"] == tmp_path / "c/ground_truth/a hole/0.1_mask.png"
    assert [path.name for path in dataset.train] == ["7.png", "8.png"]


def test_unscored_types_are_read_without_a_label(tmp_path: Path) -> None:
    touch(tmp_path, "c/test/good/0.png", "c/test/combined/0.png")
    dataset = load(MvtecConfig(path=str(tmp_path), unscored=["combined"]))
    assert by_id(dataset) == {"combined/0": None, "good/0": "good"}


def test_a_product_without_good_images_has_no_normal_class(tmp_path: Path) -> None:
    touch(tmp_path, "c/test/cut/0.png", "c/test/hole/0.png")
    labels = load(MvtecConfig(path=str(tmp_path))).labels
    assert labels is not None
    assert (labels.classes, labels.normal) == (("cut", "hole"), None)


def test_mask_folders_may_be_missing_but_not_have_gaps(tmp_path: Path) -> None:
    touch(tmp_path, "c/test/cut/0.png", "c/test/cut/1.png")
    (tmp_path / "c/ground_truth/cut").mkdir(parents=True)  # empty
    config = MvtecConfig(path=str(tmp_path))
    assert all(sample.truth_mask is None for sample in load(config).samples)
    touch(tmp_path, "c/ground_truth/cut/0_mask.png")
    with pytest.raises(InputError, match=r"cut/1\.png: no truth mask"):
        load(config)


def test_mtd_as_released(tmp_path: Path) -> None:
    touch(tmp_path, *(f"MT_Free/Imgs/f{i}.{end}" for i in range(3) for end in ("jpg", "png")))
    touch(tmp_path, "MT_Crack/Imgs/k.jpg", "MT_Crack/Imgs/k.png", "other/x.png")
    (tmp_path / "mtd_train_filenames.txt").write_text("f0.jpg\nf2.jpg\n")
    dataset = load(MtdConfig(path=str(tmp_path)))
    assert by_id(dataset) == {"MT_Crack/k": "MT_Crack", "MT_Free/f1": "MT_Free"}
    assert dataset.labels is not None
    assert dataset.labels.classes[0] == "MT_Free"
    assert [path.name for path in dataset.train] == ["f0.jpg", "f2.jpg"]
    assert dataset.samples[0].truth_mask == tmp_path / "MT_Crack/Imgs/k.png"
    assert len(load(MtdConfig(path=str(tmp_path), train_list=None)).samples) == 4
    with pytest.raises(InputError, match=r"dataset\.train_list=null"):
        load(MtdConfig(path=str(tmp_path), train_list="absent.txt"))


def test_a_plain_folder_has_no_labels(tmp_path: Path) -> None:
    touch(tmp_path, "b.png", "a.JPG", "ü_crop.bmp", ".hidden.png")
    (tmp_path / "notes.txt").write_text("not an image")
    dataset = load(FolderConfig(path=str(tmp_path)))
    assert dataset.labels is None
    assert [sample.id for sample in dataset.samples] == ["a", "b", "ü_crop"]


def test_class_folders_are_labels_and_loose_images_have_none(tmp_path: Path) -> None:
    touch(tmp_path, "x.png", "good/x.png", "dent/x.png", "dent/y.png")
    dataset = load(FolderConfig(path=str(tmp_path)))
    assert by_id(dataset) == {"x": None, "dent/x": "dent", "dent/y": "dent", "good/x": "good"}


def test_base_set(tmp_path: Path) -> None:
    touch(tmp_path, "images/good/0.png", "images/cut/0.png", "masks/good/0.png", "masks/cut/0.png")
    base = catalog.load_base(FolderBaseConfig(path=str(tmp_path)), Cache(tmp_path))
    assert base is not None
    assert by_id(base) == {"cut/0": "cut", "good/0": "good"}  # a class like any other, by name
    assert catalog.load_base(BaseConfig(), Cache(tmp_path)) is None
    touch(tmp_path, "images/dent/9.png")
    with pytest.raises(InputError, match=r"dent/9\.png: no mask; expected .*masks/dent/9\.png"):
        catalog.load_base(FolderBaseConfig(path=str(tmp_path)), Cache(tmp_path))


def test_what_is_missing_is_named_and_what_is_there_shown(tmp_path: Path) -> None:
    touch(tmp_path, "screw/test/good/0.png", "bottle/test/good/0.png")
    with pytest.raises(InputError, match=r"nut: no such folder; .*bottle, screw; set category="):
        load(MvtecConfig(path=str(tmp_path)), "nut")
    with pytest.raises(InputError, match=r"nor is there .*set category"):
        load(MvtecConfig(path=str(tmp_path / "no" / "where")), "nut")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: no images; expected files ending in \.png"):
        load(FolderConfig(path=str(tmp_path / "empty")))
    with pytest.raises(InputError, match="no MT_<class> folders"):
        load(MtdConfig(path=str(tmp_path)))
    with pytest.raises(InputError, match=r"images: no such folder"):
        catalog.load_base(FolderBaseConfig(path=str(tmp_path)), Cache(tmp_path))
    (tmp_path / "images").mkdir()
    with pytest.raises(InputError, match=r"images: no images"):
        catalog.load_base(FolderBaseConfig(path=str(tmp_path)), Cache(tmp_path))


def test_near_misses_are_recognised(tmp_path: Path) -> None:
    touch(tmp_path, "screw/test/good/0.png")
    with pytest.raises(InputError, match=r"did you mean screw\?"):
        load(MvtecConfig(path=str(tmp_path)), "SCREWS")
    with pytest.raises(InputError, match=r"looks like a category itself; .* category=screw"):
        load(MvtecConfig(path=str(tmp_path / "screw")), "screw")
    with pytest.raises(InputError, match=r"0\.png is a file; expected its folder"):
        load(FolderConfig(path=str(tmp_path / "screw/test/good/0.png")))
    for i in range(20):
        (tmp_path / f"x{i}").mkdir()
    with pytest.raises(InputError, match=r"and 13 more; set dataset\.path"):
        load(FolderConfig(path=str(tmp_path / "absent")))
    with pytest.raises(InputError, match=r"base=none"):
        catalog.load_base(FolderBaseConfig(path=str(tmp_path / "absent")), Cache(tmp_path))


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "a.jpg")
    with pytest.raises(InputError, match=r"a\.jpg and a\.png have one name"):
        load(FolderConfig(path=str(tmp_path)))
