"""Named regions for other tools, and corrections back from them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from PIL import Image

from anomalyncd.cli import main as command
from anomalyncd.decisions.actions import FALSE_ALARM, UNKNOWN_ID, Name
from anomalyncd.errors import InputError
from anomalyncd.review.corrections import corrections
from anomalyncd.review.exports import export
from anomalyncd.review.session import Review
from tests.helpers.reviewed import make_run, move, reject

HOSTILE = "<script>../\x1b[31m" + 10_000 * "a"


@pytest.fixture
def review(tmp_path: Path) -> Review:
    review = Review(make_run(tmp_path))
    review.decide(Name("0", "a/b"), move(review, [4], "new-x", "dent"))
    review.decide(reject(review, [5], FALSE_ALARM))
    return review


def names(review: Review) -> list[str]:
    return [review.state.name_of(review.state.class_of(row)) for row in range(12)]


def test_a_table_that_was_corrected_is_taken_back(review: Review, tmp_path: Path) -> None:
    path = tmp_path / "named.csv"
    assert export(review, "csv", path) == 12
    assert corrections(review, path) == []  # nothing was changed
    changed = path.read_text().replace("dent", "bump").replace("11,photo 11", "11,photo 11")
    rows = list(csv.DictReader(changed.splitlines()))
    rows[0]["class_name"], rows[1]["class_name"] = "class 2", "false alarm"
    rows[2]["class_name"], rows[3]["class_name"] = "not a defect", "unknown"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    before = names(review)
    review.decide(*corrections(review, path))
    after = ["class 2", "false alarm", "not a defect", "unknown", "bump", *before[5:]]
    assert names(review) == after
    assert review.state.class_of(0) == "2" and review.state.class_of(3) == UNKNOWN_ID
    assert review.state.decided[:6].tolist() == [True, True, True, False, True, True]


def test_pictures_that_were_sorted_into_other_folders_are_taken_back(
    review: Review, tmp_path: Path
) -> None:
    folder = tmp_path / "sorted"
    assert export(review, "folders", folder) == 12
    assert corrections(review, folder) == []  # also for "a/b", which no folder can be called
    picture = folder / "class 2" / "9-photo 9.png"
    assert Image.open(picture).size == (28, 28)
    (folder / "deep dent").mkdir()
    picture.rename(folder / "deep dent" / picture.name)
    (folder / "dent").rename(folder / "class 2" / "nested")  # no longer a class
    review.decide(*corrections(review, folder))
    assert names(review)[9] == "deep dent" and names(review)[4] == "dent"


def test_coco_holds_defects_with_their_names_and_boxes(review: Review, tmp_path: Path) -> None:
    path = tmp_path / "coco.json"
    assert export(review, "coco", path) == 11  # the false alarm is left out
    made = json.loads(path.read_text())
    assert {one["name"] for one in made["categories"]} == {"a/b", "dent", "class 1", "class 2"}
    dent = next(one["id"] for one in made["categories"] if one["name"] == "dent")
    (found,) = [one for one in made["annotations"] if one["category_id"] == dent]
    assert found["bbox"] == [16, 16, 28, 28] and found["attributes"]["region"] == 4
    (image,) = [one for one in made["images"] if one["id"] == found["image_id"]]
    assert (image["width"], image["height"]) == (64, 64)


def test_fiftyone_gets_relative_boxes_and_absolute_paths(review: Review, tmp_path: Path) -> None:
    assert export(review, "fiftyone", tmp_path / "fo") == 11
    labels = json.loads((tmp_path / "fo" / "labels.json").read_text())
    paths = json.loads((tmp_path / "fo" / "data.json").read_text())
    (found,) = labels["labels"]["photo 4"]
    assert found["label"] == "dent" and found["bounding_box"] == [0.25, 0.25, 0.4375, 0.4375]
    assert Path(paths["photo 4"]).is_file() and "dent" in labels["classes"]


def test_a_photograph_that_is_gone_does_not_stop_an_export(review: Review, tmp_path: Path) -> None:
    review.regions.images[0].unlink()
    assert export(review, "coco", tmp_path / "coco.json") == 11
    assert export(review, "folders", tmp_path / "folders") == 11
    assert export(review, "fiftyone", tmp_path / "fiftyone") == 10


def test_nothing_is_overwritten(review: Review, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(InputError, match="nothing is overwritten"):
        export(review, "folders", tmp_path / "there")


def test_a_hostile_name_stays_inside_its_folder(review: Review, tmp_path: Path) -> None:
    review.decide(Name("1", HOSTILE[:10_000]), Name("2", ".."))
    folder = tmp_path / "out" / "sorted"
    export(review, "folders", folder)
    assert {path.parent for path in folder.iterdir()} == {folder}
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["sorted"]
    assert corrections(review, folder) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("region,id\n", "no column class_name"),
        ("region,id,class_name\nx,photo 0,a\n", "region 'x'; expected a number"),
        ("region,id,class_name\n99,photo 0,a\n", "this run has 12 regions"),
        ("region,id,class_name\n1,photo 0,a\n", "belongs to another run"),
        ("region,id,class_name\n0,photo 0,\n", "no class name"),
        (f"region,id,class_name\n0,photo 0,{200 * 'x'}\n", "a name of 200 characters"),
        ("region,id,class_name\n0,photo 0,a\n0,photo 0,b\n", "given twice"),
    ],
)
def test_a_table_that_cannot_be_used_changes_nothing(
    review: Review, tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        corrections(review, path)


def test_a_folder_of_another_run_is_refused(review: Review, tmp_path: Path) -> None:
    folder = tmp_path / "sorted" / "dent"
    folder.mkdir(parents=True)
    with pytest.raises(InputError, match="no pictures of regions"):
        corrections(review, folder.parent)
    (folder / "3-photo 9.png").touch()
    with pytest.raises(InputError, match="another photograph"):
        corrections(review, folder.parent)


def test_the_command_exports_and_imports(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, table = make_run(tmp_path), tmp_path / "named.csv"
    assert command.main(["review", str(run), "--export", "csv", "--output", str(table)]) == 0
    table.write_text(table.read_text().replace("class 1", "dent"))
    assert command.main(["review", str(run), "--import", str(table)]) == 0
    assert "4 regions are in another class" in capsys.readouterr().out
    assert names(Review(run))[4] == "dent"
    assert command.main(["review", str(tmp_path)]) == 1
    assert "not a finished run" in capsys.readouterr().err
