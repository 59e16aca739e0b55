"""Reading each dataset's layout; labels apart from samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomalyncd.config import (
    BaseConfig,
    CustomBaseConfig,
    CustomDatasetConfig,
    DatasetConfig,
    FolderBaseConfig,
    FolderConfig,
    MtdConfig,
    MvtecConfig,
)
from anomalyncd.data import datasets
from anomalyncd.data.folders import subfolders
from anomalyncd.errors import InputError
from anomalyncd.storage.cache import Cache
from anomalyncd.types import UNLABELLED, Dataset


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((2, 2), np.uint8)).save(path)


def load(config: DatasetConfig, category: str = "c") -> Dataset:
    return datasets.load(config, category, Cache(Path("unused")))


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
    base = datasets.load_base(FolderBaseConfig(path=str(tmp_path)), Cache(tmp_path))
    assert base is not None
    assert by_id(base) == {"cut/0": "cut", "good/0": "good"}  # a class like any other, by name
    assert datasets.load_base(BaseConfig(), Cache(tmp_path)) is None
    touch(tmp_path, "images/dent/9.png")
    with pytest.raises(InputError, match=r"dent/9\.png: no mask; expected .*masks/dent/9\.png"):
        datasets.load_base(FolderBaseConfig(path=str(tmp_path)), Cache(tmp_path))


def test_a_missing_folder_is_named_with_what_exists_instead(tmp_path: Path) -> None:
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
        datasets.load_base(FolderBaseConfig(path=str(tmp_path)), Cache(tmp_path))
    (tmp_path / "images").mkdir()
    with pytest.raises(InputError, match=r"images: no images"):
        datasets.load_base(FolderBaseConfig(path=str(tmp_path)), Cache(tmp_path))


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
        datasets.load_base(FolderBaseConfig(path=str(tmp_path / "absent")), Cache(tmp_path))


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "a.jpg")
    with pytest.raises(InputError, match=r"a\.jpg and a\.png have the same name"):
        load(FolderConfig(path=str(tmp_path)))


def unfetched(*paths: Path) -> None:
    """Make links to content that is missing, as git-annex and DVC do."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(path.parent / "store" / path.name)


def test_links_to_missing_files_are_reported_not_dropped(tmp_path: Path) -> None:
    touch(tmp_path, "0.png")
    unfetched(*(tmp_path / f"{i}.png" for i in range(1, 8)))
    found = r"1\.png \(and 6 more links\): a link to a file that is missing; fetch .*git annex get"
    with pytest.raises(InputError, match=found):
        load(FolderConfig(path=str(tmp_path)))


def test_a_link_to_itself_is_reported(tmp_path: Path) -> None:
    touch(tmp_path, "good/0.png", "good/2.png")
    (tmp_path / "good/1.png").symlink_to(tmp_path / "good/1.png")
    with pytest.raises(InputError, match=r"good/1\.png: a link to a file that is missing"):
        load(FolderConfig(path=str(tmp_path)))


@pytest.mark.parametrize(
    "missing",
    [
        *("c", "c/test", "c/test/cut", "c/test/cut/1.png", "c/train", "c/train/good"),
        *("c/train/good/7.png", "c/ground_truth", "c/ground_truth/cut"),
        "c/ground_truth/cut/1_mask.png",
    ],
)
def test_a_missing_target_anywhere_in_mvtec_is_reported(tmp_path: Path, missing: str) -> None:
    there = ("c/test/cut/0.png", "c/test/good/0.png", "c/train/good/8.png")
    touch(tmp_path, *(name for name in there if not name.startswith(f"{missing}/")))
    unfetched(tmp_path / missing)
    with pytest.raises(InputError, match=rf"{missing}: a link to a file that is missing"):
        load(MvtecConfig(path=str(tmp_path)))


@pytest.mark.parametrize("missing", ["masks", "masks/cut", "masks/cut/0.png", "images/dent"])
def test_a_missing_target_in_a_base_set_is_reported(tmp_path: Path, missing: str) -> None:
    touch(tmp_path, "images/cut/0.png")
    unfetched(tmp_path / missing)
    with pytest.raises(InputError, match=rf"{missing}: a link to a file that is missing"):
        datasets.load_base(FolderBaseConfig(path=str(tmp_path)), Cache(tmp_path / "cache"))


def test_links_that_lead_somewhere_are_followed(tmp_path: Path) -> None:
    touch(tmp_path, "store/0.png")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "good").symlink_to(tmp_path / "store")
    (tmp_path / "set" / "1.png").symlink_to(tmp_path / "store" / "0.png")
    (tmp_path / "set" / ".#0.png").symlink_to("an editor's lock")
    assert by_id(load(FolderConfig(path=str(tmp_path / "set")))) == {"1": None, "good/0": "good"}


def test_for_an_unreadable_folder_the_message_advises_to_make_it_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's own message would be read as an unwritable folder."""

    def refuse(self: Path) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    touch(tmp_path, "c/test/good/0.png")
    monkeypatch.setattr(Path, "iterdir", refuse)
    found = r"cannot be read \(Permission denied\); make it readable$"
    with pytest.raises(InputError, match=rf"{tmp_path}: {found}"):
        load(FolderConfig(path=str(tmp_path)))
    with pytest.raises(InputError, match=rf"test: {found}"):
        load(MvtecConfig(path=str(tmp_path)))
    with pytest.raises(InputError, match=found):
        subfolders(tmp_path)
    cache = Cache(tmp_path / "cache")
    monkeypatch.setattr(Path, "is_dir", refuse)  # a folder above it is closed
    with pytest.raises(InputError, match=rf"{tmp_path}: {found}"):
        datasets.load(FolderConfig(path=str(tmp_path)), "c", cache)


def test_pictures_that_are_not_read_are_reported(tmp_path: Path) -> None:
    for i in range(12):
        (tmp_path / f"{i}.HEIC").touch()
    (tmp_path / "notes.txt").touch()
    instead = r"no images; .*; found 12 \.heic files, 1 \.txt file$"
    with pytest.raises(InputError, match=instead):
        load(FolderConfig(path=str(tmp_path)))
    touch(tmp_path, "a.png")
    (tmp_path / "dent").mkdir()
    (tmp_path / "dent" / "x.gif").touch()
    (warning,) = load(FolderConfig(path=str(tmp_path))).warnings
    assert warning.startswith(f"{tmp_path}: 12 .heic files, 1 .gif file not read; convert them")
    touch(tmp_path, "c/test/good/0.png")
    (tmp_path / "c/test/good/1.gif").touch()
    assert "1 .gif file not read" in load(MvtecConfig(path=str(tmp_path))).warnings[0]


def test_pictures_in_too_deep_folders_are_reported(tmp_path: Path) -> None:
    """Otherwise a class whose images are in batches would be missing without a message."""
    touch(tmp_path, "photos/scratch/0.png", "photos/dent/batch1/0.png", "photos/dent/batch2/0.png")
    touch(tmp_path, "photos/scratch/.thumbs/0.png")
    (warning,) = load(FolderConfig(path=str(tmp_path / "photos"))).warnings
    assert warning.startswith(f"{tmp_path / 'photos/dent/batch1'}: its images are not read, since")
    assert not load(FolderConfig(path=str(tmp_path / "photos"), leave_out=["dent"])).warnings
    with pytest.raises(InputError, match=rf"no images; .* deeper, in {tmp_path}/photos/dent/batch"):
        load(FolderConfig(path=str(tmp_path)))
    touch(tmp_path, "c/test/good/0.png", "c/test/cut/again/0.png")
    (warning,) = load(MvtecConfig(path=str(tmp_path))).warnings
    assert "test/cut/again: its images are not read" in warning
    touch(tmp_path, "images/a/0.png", "masks/a/0.png", "images/a/more/0.png")
    base = datasets.load_base(FolderBaseConfig(path=str(tmp_path)), Cache(tmp_path / "cache"))
    assert base is not None and "images/a/more: its images" in base.warnings[0]


def test_pages_beyond_the_first_are_reported_once_per_folder(tmp_path: Path) -> None:
    page = Image.fromarray(np.zeros((2, 2), np.uint8))
    for name in ("good/0.tif", "good/1.tif", "dent/0.tif"):
        touch(tmp_path, name)
        page.save(tmp_path / name, save_all=True, append_images=[page])
    touch(tmp_path, "good/2.tif")
    dent, good = load(FolderConfig(path=str(tmp_path))).warnings
    assert "dent/0.tif: more than one page in a file; only the first is used" in dent
    assert "good/0.tif (and 1 more file): more than one page" in good


def test_files_are_checked_before_anything_starts(tmp_path: Path) -> None:
    """By their headers: images, training images and masks."""
    names = ("c/test/cut/0.png", "c/train/good/7.png", "c/ground_truth/cut/0_mask.png")
    for name in names:
        touch(tmp_path, *names)
        assert not load(MvtecConfig(path=str(tmp_path))).warnings
        Image.fromarray(np.zeros((2, 2), np.uint8)).save(tmp_path / name, "GIF")
        with pytest.raises(InputError, match=rf"{name}: a GIF under the name \.png; convert it"):
            load(MvtecConfig(path=str(tmp_path)))
        Image.fromarray(np.zeros((2000, 1001), np.uint8)).save(tmp_path / name)
        with pytest.raises(InputError, match=rf"{name}: .* 3 megapixels; expected at most 2;"):
            datasets.load(
                MvtecConfig(path=str(tmp_path)), "c", Cache(Path("unused")), max_megapixels=2
            )


OWN_SETS = '''
"""Every other picture of a folder, and a labelled base set, as functions of the user's own."""
from pathlib import Path

import numpy as np

from anomalyncd.types import Dataset, Labels, Sample

def every_other(path):
    images = sorted(Path(path).glob("*.png"))[::2]
    return Dataset(tuple(Sample(image.stem, image) for image in images), None)

def labelled(path, masked=True):
    images = sorted(Path(path).glob("*.png"))
    samples = tuple(Sample(i.stem, i, i if masked else None) for i in images)
    return Dataset(samples, Labels(("dent",), np.zeros(len(images), np.int64), None))

def wrong():
    return []

def fails():
    return [][0]

def sharing(path, ids, targets=None, classes=("a", "b"), normal=None):
    samples = tuple(Sample(name, Path(path, "0.png")) for name in ids)
    labels = None if targets is None else Labels(classes, np.array(targets), normal)
    return Dataset(samples, labels)
'''


def test_a_custom_dataset_is_one_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(4):
        Image.fromarray(np.full((8, 8), 255, np.uint8)).save(tmp_path / f"{i}.png")
    (tmp_path / "own_sets.py").write_text(OWN_SETS)
    monkeypatch.chdir(tmp_path)
    cache, options = Cache(tmp_path / "cache"), {"path": str(tmp_path)}
    found = datasets.load(
        CustomDatasetConfig(target="own_sets:every_other", options=options), "", cache
    )
    assert [sample.id for sample in found.samples] == ["0", "2"]
    base = datasets.load_base(CustomBaseConfig(target="own_sets:labelled", options=options), cache)
    assert base is not None and len(base.samples) == 4
    for target, message in (
        ("own_sets:wrong", "returned list"),
        ("own_sets:no", "has no attribute"),
        ("own_sets:fails", r"IndexError: list index out of range \(debug=true shows where\)"),
    ):
        with pytest.raises(InputError, match=f"{target}: .*{message}"):
            datasets.load(CustomDatasetConfig(target=target), "", cache)
    unmasked = CustomBaseConfig(target="own_sets:labelled", options={**options, "masked": False})
    with pytest.raises(InputError, match="no mask"):
        datasets.load_base(unmasked, cache)


@pytest.mark.parametrize(
    ("ids", "rest", "message"),
    [
        (["x", "y", "x"], {}, "2 samples have the id 'x'; expected a different id for each"),
        (["../x"], {}, "id is '../x'; expected text such as"),
        (["/tmp/x"], {}, "id is '/tmp/x'; expected"),
        (["x", 3], {}, "id is 3; expected"),
        (
            ["x", "y"],
            {"targets": [0]},
            r"found int64 \(1,\); expected an integer array of shape \(2,\)",
        ),
        (["x"], {"targets": [0.5]}, "found float64"),
        (["x", "y"], {"targets": [0, 2]}, "a target is 2; expected 0 to 1 for 2 classes, or -1"),
        (["x"], {"targets": [-2]}, "a target is -2"),
        (["x"], {"targets": [0], "classes": ("a", "a")}, "expected different texts"),
        (["x"], {"targets": [0], "normal": 1}, "normal is 1; expected 0"),
    ],
)
def test_what_a_custom_function_returns_is_checked_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ids: list, rest: dict, message: str
) -> None:
    """Otherwise images share a map, a map is written outside the cache, or training is useless."""
    touch(tmp_path, "0.png")
    (tmp_path / "own_sets.py").write_text(OWN_SETS)
    monkeypatch.chdir(tmp_path)
    options = {"path": str(tmp_path), "ids": ids, **rest}
    config = CustomDatasetConfig(target="own_sets:sharing", options=options)
    with pytest.raises(InputError, match=message):
        load(config)
    config.options |= {"ids": ["dent/1", "a b"], "targets": [-1, 1], "classes": ("a", "b")}
    config.options |= {"normal": 0}
    assert [sample.id for sample in load(config).samples] == ["dent/1", "a b"]
