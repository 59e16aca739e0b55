"""What a run keeps of its own regions, and files that cannot be trusted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from anomalyncd.errors import InputError
from anomalyncd.inference.unknown import MOST, Seen
from anomalyncd.results import known_regions
from anomalyncd.storage.tensors import load_tensors, save_tensors

TOKENS = np.array([[0.5, -1.0], [2.0, 0.25], [1.0, 3.0]], np.float32)

HALVES = torch.ones(3, 2).half()
REGIONS = Seen(np.array([[1.0, 2.0, -0.5], [0.0, 0.25, 8.0]], np.float32), np.array([0, 0]))
IMAGES = Seen(np.array([[3.0, 2.0, 1.0], [0.5, 0.0, 0.0]], np.float32), np.array([0, 1]))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "predictions.csv").write_text("id,image\na,photos/a.png\nb,photos/b.png\n")
    (tmp_path / "regions.csv").write_text(
        "region,id,left,top,right,bottom,area,class,class_name,confidence\n"
        "0,a,1,2,30,40,55,1,class 1,0.75\n1,a,5,6,7,8,2,0,class 0,0.5\n"
        "2,b,0,0,64,64,0,0,class 0,1\n"
    )
    known_regions.write(tmp_path, TOKENS, TOKENS[:, :1], REGIONS, IMAGES)
    return tmp_path


def test_regions_keep_their_order_and_their_photographs(run: Path) -> None:
    known = known_regions.read(run)
    assert known.images == (Path("photos/a.png"), Path("photos/a.png"), Path("photos/b.png"))
    assert known.boxes.tolist() == [[1, 2, 30, 40], [5, 6, 7, 8], [0, 0, 64, 64]]
    assert known.areas.tolist() == [55, 2, 0]
    assert known.classes.tolist() == [1, 0, 0]
    assert known.class_names == ("class 1", "class 0", "class 0")
    assert known.confidences.tolist() == [0.75, 0.5, 1]
    np.testing.assert_array_equal(known.tokens, TOKENS)
    assert known.looks is not None
    np.testing.assert_array_equal(known.looks, TOKENS[:, :1])
    assert known.ids == ("a", "a", "b")


def edited(path: Path, old: str, new: str) -> None:
    path.write_text(path.read_text().replace(old, new))


@pytest.mark.parametrize(
    ("table_name", "old", "new", "message"),
    [
        ("regions.csv", "area,", "size,", "no column area"),
        ("regions.csv", "1,a,5", "1,a,five", "left, top, right, bottom: not a number"),
        ("regions.csv", "1,a,5", "1,a," + 30 * "9", "not a number"),
        ("regions.csv", ",class 0,1\n", ",class 0\n", "line 4 has too few columns"),
        ("regions.csv", "2,b,", "2,c,", "image 'c' is not in predictions.csv"),
        ("regions.csv", "2,b,0,0,64,64,0,0,class 0,1\n", "", "features of the 2 regions"),
    ],
)
def test_a_table_that_was_changed_is_refused(
    run: Path, table_name: str, old: str, new: str, message: str
) -> None:
    edited(run / table_name, old, new)
    with pytest.raises(InputError, match=message):
        known_regions.read(run)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({}, "does not hold the features"),
        ({"tokens": torch.zeros(3).half()}, "does not hold the features"),
        ({"tokens": torch.zeros(3, 0).half()}, "does not hold the features"),
        ({"tokens": torch.full((3, 2), 1e300, dtype=torch.float64)}, "does not hold the features"),
        ({"tokens": torch.full((3, 2), float("nan")).half()}, "not finite"),
        ({"tokens": HALVES, "looks": HALVES[:2].clone()}, r"3 regions of the run \(looks"),
        ({"tokens": HALVES, "looks": HALVES[:, :0].clone()}, r"3 regions of the run \(looks"),
        ({"tokens": HALVES, "looks": HALVES.double()}, r"3 regions of the run \(looks"),
    ],
)
def test_features_that_were_changed_are_refused(
    run: Path, tensors: dict[str, torch.Tensor], message: str
) -> None:
    save_tensors(run / known_regions.FEATURES, tensors, {})
    with pytest.raises(InputError, match=message):
        known_regions.read(run)


def test_a_run_of_an_earlier_version_says_what_to_do(run: Path) -> None:
    (run / known_regions.FEATURES).rename(run / "elsewhere")
    with pytest.raises(InputError, match="repeat the run"):
        known_regions.read(run)


def test_what_a_run_has_seen_is_read_as_it_was_written(run: Path) -> None:
    seen = known_regions.read_seen(run, width=3)
    assert seen is not None
    for found, written in zip(seen, (REGIONS, IMAGES), strict=True):
        np.testing.assert_array_equal(found.features, written.features)
        np.testing.assert_array_equal(found.images, written.images)


def test_an_earlier_run_has_kept_nothing_to_compare_with(run: Path) -> None:
    save_tensors(run / known_regions.FEATURES, {"tokens": torch.zeros(3, 2)}, {})
    assert known_regions.read_seen(run, width=3) is None
    (run / known_regions.FEATURES).unlink()
    assert known_regions.read_seen(run, width=3) is None


@pytest.mark.parametrize(
    "changed",
    [
        {"image_number": None},
        {"image_number": torch.zeros(3, dtype=torch.int64)},
        {"image_number": torch.zeros(2)},
        {"image_appearance": torch.zeros(2, 4).half()},
        {"image_appearance": torch.zeros(2, 3)},
        {"image_appearance": torch.zeros(6).half()},
        {"region_appearance": torch.full((2, 3), float("inf")).half()},
        {
            "region_appearance": torch.zeros(MOST + 1, 3).half(),
            "region_number": torch.zeros(MOST + 1, dtype=torch.int64),
        },
    ],
)
def test_what_a_run_has_seen_is_refused_if_it_was_changed(
    run: Path, changed: dict[str, torch.Tensor | None]
) -> None:
    path = run / known_regions.FEATURES
    kept = {**load_tensors(path)[0], **changed}
    save_tensors(path, {name: t for name, t in kept.items() if t is not None}, {})
    with pytest.raises(InputError, match="do not fit each other or the network"):
        known_regions.read_seen(run, width=3)
