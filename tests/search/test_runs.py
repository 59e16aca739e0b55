"""Runs in a collection, and the regions that resemble a photograph's."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from anomalyncd.cli.finished import similar as command
from anomalyncd.errors import InputError
from anomalyncd.results import known_regions
from anomalyncd.search import runs
from anomalyncd.search.collection import Wanted
from anomalyncd.search.runs import Place
from tests.helpers.runs import folder_overrides, run
from tests.helpers.tampering import tamper


@pytest.fixture
def finished(photographs: Path, overrides: list[str]) -> Path:
    settings = [*folder_overrides(photographs, overrides), "novel_classes=3", "train.epochs=1"]
    return run(settings).folder


def found_in(place: Place, folder: Path, photo: Path, **wanted: str) -> list[runs.Found]:
    with runs.opened(place, folder) as collection:
        runs.fill(collection, folder)
        boxes, tokens = runs.regions_of(folder, photo)
        return runs.similar(collection, boxes, tokens, 3, Wanted(**wanted))


def test_a_photograph_of_the_run_resembles_itself_and_then_what_comparing_everything_says(
    finished: Path, tmp_path: Path
) -> None:
    known = known_regions.read(finished)
    row = int(np.flatnonzero(known.areas > 0)[0])
    found = found_in(Place(tmp_path / "c"), finished, known.images[row])
    unit = known.tokens / np.linalg.norm(known.tokens, axis=1, keepdims=True)
    own = [i for i, image in enumerate(known.images) if image == known.images[row]]
    others = np.flatnonzero(known.areas > 0)
    cosines = (unit[own] @ unit[others].T).max(0)
    best = others[np.argsort(-cosines)[:3]].tolist()  # its own regions are all at 1
    assert sorted(one.similar.entry.number for one in found) == sorted(best)
    scores = [one.similar.score for one in found]
    assert scores == pytest.approx(np.sort(cosines)[::-1][:3], abs=1e-5)
    assert scores[0] == pytest.approx(1, abs=1e-5)
    for one in found:
        assert one.similar.entry.class_name == known.class_names[one.similar.entry.number]
        assert one.similar.entry.product == "photos"


def test_a_new_photograph_is_cut_as_the_run_would_cut_it(
    finished: Path, photographs: Path, tmp_path: Path
) -> None:
    """The same pixels in another file: nothing is known of it but its map."""
    known = known_regions.read(finished)
    row = int(np.flatnonzero(known.areas > 0)[0])
    new, maps = tmp_path / "new" / known.images[row].name, photographs / "maps"
    new.parent.mkdir()
    shutil.copy(known.images[row], new)
    boxes, tokens = runs.regions_of(finished, new, maps)
    own = [i for i, image in enumerate(known.images) if image == known.images[row]]
    assert [list(box) for box in boxes] == known.boxes[own].tolist()
    np.testing.assert_allclose(tokens, known.tokens[own], atol=0.02, rtol=0.01)
    with pytest.raises(InputError, match="needs more than the new images"):
        runs.regions_of(finished, new)


def test_a_run_is_added_once_and_again_if_it_has_changed(finished: Path, tmp_path: Path) -> None:
    regions = int((known_regions.read(finished).areas > 0).sum())
    with runs.opened(Place(tmp_path / "c"), finished) as collection:
        assert runs.fill(collection, finished) == regions
        assert runs.fill(collection, finished) == 0
        table = finished / "regions.csv"
        table.write_text(table.read_text().replace(",class 1,", ",dent,"))
        assert runs.fill(collection, finished) == regions
        assert collection.count({}) == regions
        assert collection.count({"class_name": "class 1"}) == 0


def test_a_copy_of_a_run_is_there_once_and_another_network_has_its_own_collection(
    finished: Path, tmp_path: Path
) -> None:
    place, second = Place(tmp_path / "c"), tmp_path / "second"
    shutil.copytree(finished, second)
    for folder in (finished, second):
        with runs.opened(place, folder) as collection:
            runs.fill(collection, folder)
    with runs.opened(place, second) as collection:
        regions = int((known_regions.read(finished).areas > 0).sum())
        assert collection.count({}) == collection.count({"run": str(second.resolve())}) == regions

    def other_weights(tensors: dict, header: dict) -> None:
        name = next(name for name in tensors if not name.startswith("heads."))
        tensors[name] = tensors[name] + 1

    tamper(second / "model.safetensors", other_weights)
    with runs.opened(place, second) as collection:
        assert collection.count({}) == 0


def test_the_command_prints_a_list_of_regions(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    known = known_regions.read(finished)
    row = int(np.flatnonzero(known.areas > 0)[0])
    arguments = [str(finished), str(known.images[row]), "--top", "2", "--json"]
    monkeypatch.setattr("sys.argv", ["anomalyncd similar", *arguments])
    assert command.main() == 0
    first, second = json.loads(capsys.readouterr().out)
    assert {"image", "box", "class_name", "score"} <= first.keys()
    assert first["score"] == pytest.approx(1, abs=1e-5)
    assert first["score"] >= second["score"]
    assert all(os.path.isabs(one["image"]) for one in (first, second))
    assert (finished / runs.FOLDER).is_dir()

    monkeypatch.setattr("sys.argv", ["anomalyncd similar", *arguments[:2]])
    monkeypatch.setenv("COLUMNS", "40")
    assert command.main() == 0
    assert str(known.images[row]) in capsys.readouterr().out, "in one piece, to be copied"
    name = known.class_names[row]
    given = [*arguments[:2], "--class", name[:-1] + "x"]
    monkeypatch.setattr("sys.argv", ["anomalyncd similar", *given])
    assert command.main() == 1
    assert "no such class; " in capsys.readouterr().err


def test_a_class_that_only_another_run_of_the_collection_has_can_be_asked_for(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a kind that an extension appended."""
    known = known_regions.read(finished)
    row = int(np.flatnonzero(known.areas > 0)[0])
    extension = tmp_path / "extension"
    shutil.copytree(finished, extension, ignore=shutil.ignore_patterns(runs.FOLDER))
    regions = extension / "regions.csv"
    regions.write_text(regions.read_text().replace(known.class_names[row], "appended"))
    here = ["--top", "1", f"search.path={tmp_path / 'both'}"]
    for root, asked in ((extension, []), (finished, ["--class", "appended"])):
        arguments = [str(root), str(known.images[row]), *here, *asked]
        monkeypatch.setattr("sys.argv", ["anomalyncd similar", *arguments])
        assert command.main() == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["search.url=localhost"], "expected http"),
        (["search.path=a", "search.url=http://b"], "in one place only"),
        (["search.where=a"], "expected search.path=DIR or search.url=URL"),
        (["--top", "0"], "expected 1 to 10000"),
        (["--top", str(2**70)], "expected 1 to 10000"),
    ],
)
def test_wrong_arguments_are_one_message(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "photo.png").touch()
    given = [str(tmp_path), str(tmp_path / "photo.png"), *arguments]
    monkeypatch.setattr("sys.argv", ["anomalyncd similar", *given])
    assert command.main() == 1
    assert message in capsys.readouterr().err
