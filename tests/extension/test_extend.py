"""Whole extensions of a small run: what they write, and what happens when they are interrupted."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from anomalyncd.cli.main import main
from anomalyncd.decisions.actions import Merge, Name
from anomalyncd.errors import InputError
from anomalyncd.extension import extend as extending
from anomalyncd.extension import groups, record, waiting
from anomalyncd.extension.extend import extend
from anomalyncd.learning.learn import learn
from anomalyncd.prediction.classifier import Classifier, Examined
from anomalyncd.results import known_regions
from anomalyncd.review.session import Review
from anomalyncd.storage import class_list
from tests.helpers.reviewed import confirm, move
from tests.helpers.runs import run, table
from tests.helpers.settings import SMALL


def draw(folder: Path, count: int, seed: int, colour: int = 255) -> Path:
    """Photographs with a square each, and their maps in `maps` beside the folder."""
    generator = np.random.default_rng(seed)
    for number in range(count):
        image = generator.integers(80, 100, (48, 64, 3)).astype(np.uint8)
        scores = np.full((48, 64), 10, np.uint8)
        x = int(generator.integers(2, 40))
        image[10:30, x : x + 18] = colour
        scores[10:30, x : x + 18] = 200 + number
        for kind, pixels in ((folder.name, image), ("maps", scores)):
            path = folder.parent / kind / f"{folder.name}-{number}.png"
            path.parent.mkdir(exist_ok=True, parents=True)
            Image.fromarray(pixels).save(path)
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on twelve photographs."""
    root = tmp_path_factory.mktemp("first")
    photos = draw(root / "monday", 12, seed=0)
    general = [o for o in SMALL if not o.startswith(("dataset.", "base.", "detector="))]
    settings = [
        *("dataset=folder", "backbone=vit_tiny_untrained", f"dataset.path={photos}"),
        *(f"detector.path={root / 'maps'}", "base=none", "novel_classes=2", *general),
        *(f"output_root={root / 'out'}", f"cache_root={root / 'cache'}"),
    ]
    return run(settings).folder


@pytest.fixture
def parent(trained: Path, tmp_path: Path) -> Path:
    copied = tmp_path / "variant" / "seed-1"
    shutil.copytree(trained, copied)
    return copied


@pytest.fixture
def tuesday(tmp_path: Path) -> Path:
    return draw(tmp_path / "tuesday", 6, seed=1)


@pytest.fixture
def unlike(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Which of the new regions are unlike every class: a slice; no image is out of scope."""
    chosen: dict[str, Any] = {"rows": slice(0), "out of scope": 0}

    examine = Classifier.examine

    def examined(self: Classifier, *args: Any, **named: Any) -> Examined:
        found = examine(self, *args, **named)
        of_regions = np.zeros(len(found.cropped.regions))
        of_regions[chosen["rows"]] = 2.0
        of_images = np.zeros(len(found.cropped.counts))
        of_images[: chosen["out of scope"]] = 2.0
        return replace(found, region_scores=of_regions, image_scores=of_images)

    def together(unknown: groups.Unknown, *_: Any, **__: Any) -> list[groups.Group]:
        several = len(unknown.tokens) >= groups.FEWEST_REGIONS
        return [groups.Group(np.arange(len(unknown.tokens)), 1.0)] if several else []

    monkeypatch.setattr(Classifier, "examine", examined)
    monkeypatch.setattr(groups, "gather", together)
    monkeypatch.setattr("anomalyncd.extension.day.LEAST_LEARNED", 0.0)  # an untrained network
    monkeypatch.setattr("anomalyncd.extension.day.MOST_TAKEN", 1.0)
    return chosen


def extended(run: Path, photos: Path, **settings: Any) -> Path:
    maps = photos.parent / "maps"
    return extend(run, photos, maps=maps, device="cpu", quiet=True, **settings).folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_without_unknown_regions_there_is_no_new_class(
    parent: Path, tuesday: Path, unlike: dict[str, Any]
) -> None:
    before = contents(parent)
    new = extended(parent, tuesday)
    assert contents(parent) == before, "the run that is extended is only read"
    assert new.name == "seed-1"
    assert new.parent.name.startswith("variant+")
    for name in ("predictions.csv", "regions.csv"):
        old, now = table(parent / name), table(new / name)
        assert now[: len(old)] == old, "rows of earlier days stay as they are"
        assert len(now) == len(old) + 6
    assert [row["region"] for row in table(new / "regions.csv")] == [str(n) for n in range(18)]
    assert Classifier(new, device="cpu").class_names == Classifier(parent, device="cpu").class_names
    metrics = json.loads((new / "metrics.json").read_text())
    assert metrics["counts"]["images"] == 18
    assert "No new class." in metrics["extension"]["summary"]
    assert "No region of an earlier day changed its class." in (new / "report.html").read_text()
    assert not (new / ".work").exists()


def test_unknown_regions_become_a_class_that_the_next_run_predicts(
    parent: Path, tuesday: Path, unlike: dict[str, Any]
) -> None:
    unlike["rows"] = slice(1, 6)
    new = extended(parent, tuesday)
    regions = table(new / "regions.csv")
    assert [row["class"] for row in regions[13:18]] == ["2"] * 5
    assert [row["class_name"] for row in regions[13:18]] == ["class 2"] * 5
    listed = json.loads((new / class_list.FILE).read_text())["classes"]
    assert [(one["id"], one["name"], one["since"]) for one in listed][2:] == [(2, "class 2", 1)]
    old, now = Classifier(parent, device="cpu"), Classifier(new, device="cpu")
    assert now.class_names == (*old.class_names, "class 2")
    prototypes = now.network.heads.prototypes
    assert prototypes.shape[1] == 3
    assert bool((prototypes[:, :2] == old.network.heads.prototypes).all()), "old ones are kept"
    kept = known_regions.read(new)
    assert kept.classes[13:].tolist() == [2] * 5
    seen = known_regions.read_seen(new, now.network.vit.width)
    assert seen is not None
    with_defect = sum(row["area"] != "0" for row in regions)
    assert len(seen[0].features) == with_defect, "the new ones are known from now on"
    (one,) = json.loads((new / record.FILE).read_text())["appended"]
    assert (one["id"], one["regions"], one["images"]) == (2, 5, 5)


def test_too_few_unknown_regions_wait_and_count_the_next_day(
    parent: Path, tuesday: Path, tmp_path: Path, unlike: dict[str, Any]
) -> None:
    unlike["rows"] = slice(4, 6)
    second = extended(parent, tuesday)
    words = [row["class"] for row in table(second / "regions.csv")]
    assert words[16:] == ["unknown", "unknown"]
    shutil.rmtree(tuesday)  # photographs of earlier days may be gone
    wednesday = draw(tmp_path / "wednesday", 4, seed=2)
    unlike["rows"] = slice(2, 4)
    third = extended(second, wednesday)
    rows = table(third / "regions.csv")
    assert [row["class"] for row in rows[16:18]] == ["2", "2"]
    assert [row["class"] for row in rows[20:]] == ["2", "2"]
    assert [row["class"] for row in table(third / "predictions.csv")[16:18]] == ["2", "2"]
    noted = json.loads((third / record.FILE).read_text())
    assert noted["number"] == 2
    assert noted["first_regions"] == [12, 18]
    moved = [(m["region"], m["before"], m["now"]) for m in noted["moved"]]
    assert [one for one in moved if one[1] == "unknown"] == [
        (16, "unknown", "class 2"),
        (17, "unknown", "class 2"),
    ]
    assert waiting.read(third, np.zeros(0, int), 192).rows.tolist() == []


def test_images_that_are_unlike_the_product_are_counted(
    parent: Path, tuesday: Path, unlike: dict[str, Any]
) -> None:
    unlike["out of scope"] = 2
    new = extended(parent, tuesday)
    words = [row["class_name"] for row in table(new / "predictions.csv")[12:]]
    assert words.count("out of scope") == 2
    summary = json.loads((new / "metrics.json").read_text())["extension"]["summary"]
    assert "2 new images unlike the product, so out of scope." in summary


def test_a_repeated_command_returns_the_finished_extension(
    parent: Path, tuesday: Path, unlike: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = extended(parent, tuesday)
    written = contents(first)
    monkeypatch.setattr(extending, "_compute", lambda *_: pytest.fail("computed again"))
    again = extend(parent, tuesday, maps=tuesday.parent / "maps", device="cpu", quiet=True)
    assert again.was_finished
    assert again.folder == first
    assert contents(first) == written


def test_an_interrupted_extension_gives_the_same_when_it_is_repeated(
    parent: Path, tuesday: Path, unlike: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    unlike["rows"] = slice(1, 6)
    with monkeypatch.context() as patch:
        patch.setattr(extending.result.report, "write_report", interrupted)
        with pytest.raises(KeyboardInterrupt):
            extended(parent, tuesday)
    new = extended(parent, tuesday)
    whole = extended(parent, tuesday, output=parent.parent / "whole")
    for name in ("predictions.csv", "regions.csv", "model.safetensors", "features.safetensors"):
        assert (new / name).read_bytes() == (whole / name).read_bytes()


def interrupted(*_: Any) -> None:
    raise KeyboardInterrupt


def test_photographs_that_the_run_has_already_are_left_out(
    parent: Path, tuesday: Path, tmp_path: Path, unlike: dict[str, Any]
) -> None:
    second = extended(parent, tuesday)
    with pytest.raises(InputError, match="all 6 photographs are part of the run already"):
        extended(second, tuesday)
    draw(tmp_path / "both", 2, seed=5)
    shutil.copy(tuesday / "tuesday-0.png", tmp_path / "both")
    third = extended(second, tmp_path / "both")
    noted = json.loads((third / record.FILE).read_text())
    assert (noted["images"], noted["known_before"]) == (2, 1)


def test_photographs_of_the_same_name_have_ids_of_their_own(
    parent: Path, tmp_path: Path, unlike: dict[str, Any]
) -> None:
    again = draw(tmp_path / "monday", 2, seed=9)
    ids = [row["id"] for row in table(extended(parent, again) / "predictions.csv")]
    assert ids[-2:] == ["monday-0 (2)", "monday-1 (2)"]


def test_a_folder_with_something_else_is_not_written_to(
    parent: Path, tuesday: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds something else than the extension"):
        extended(parent, tuesday, output=mine)
    assert contents(mine) == {"notes.txt": b"mine"}


def changed(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        ("classes.json", {"classes": []}, "0 classes, but the model of this run has 3"),
        ("extension.json", {"classes_before": 1}, "classes_before 1"),
        ("extension.json", {"classes_before": 3}, "do not follow 3"),
        ("extension.json", {"appended": []}, "appended other classes than classes.json says"),
        ("extension.json", {"first_regions": [5, 4]}, "are not those of 1 extensions"),
        ("extension.json", {"first_regions": [99]}, "more regions than regions.csv has"),
        ("extension.json", {"format": 9}, "format 9; this version reads format 1"),
    ],
)
def test_a_forged_parent_is_refused(
    grown: Path, tmp_path: Path, file: str, values: dict[str, Any], message: str
) -> None:
    forged = tmp_path / "forged"
    shutil.copytree(grown, forged)
    changed(forged / file, **values)
    with pytest.raises(InputError, match=message) as error:
        extended(forged, draw(tmp_path / "late", 2, seed=7))
    assert str(forged) in str(error.value)


def test_a_class_that_the_model_lacks_is_refused(grown: Path, tmp_path: Path) -> None:
    forged = tmp_path / "forged"
    shutil.copytree(grown, forged)
    path = forged / "regions.csv"
    path.write_text(path.read_text().replace(",2,class 2,", ",7,class 2,"))
    with pytest.raises(InputError, match="none of the 0 to 2 of the run's model"):
        extended(forged, draw(tmp_path / "late", 2, seed=7))


@pytest.fixture
def grown(parent: Path, tuesday: Path, unlike: dict[str, Any]) -> Path:
    """An extension with a new class."""
    unlike["rows"] = slice(1, 6)
    return extended(parent, tuesday)


def test_the_command_says_what_happened(
    parent: Path, tuesday: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    maps = str(tuesday.parent / "maps")
    assert main(["extend", str(parent), str(tuesday), "--maps", maps, "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert "Extension of seed-1: 6 new images." in out
    run = Path(out.strip().rpartition("Run: ")[2])
    assert f"Report: {run / 'report.html'}" in out and f" review {run}" in out
    assert (run / "report.html").is_file()
    assert main(["status", str(run), "--once"]) == 0
    assert "extended" in capsys.readouterr().out, "not taken for the run that it extends"
    assert main(["extend", str(parent), str(tuesday / "none")]) == 1
    assert "no such folder" in capsys.readouterr().err


# After a review ---------------------------------------------------------------------------------


def test_names_and_decisions_of_a_review_go_on_into_the_extension(
    parent: Path, tuesday: Path, unlike: dict[str, Any]
) -> None:
    review = Review(parent)
    review.decide(Name("1", "scratch"), Merge(("0", "1"), "1"), confirm(review, [3], "1"))
    new = extended(parent, tuesday)
    listed = json.loads((new / class_list.FILE).read_text())["classes"]
    assert [one["name"] for one in listed] == [Review(parent).start.name_of("0"), "scratch"]
    for name in ("predictions.csv", "regions.csv"):
        assert {row["class_name"] for row in table(new / name)} == {"scratch"}
    later = Review(new)
    assert later.state.decided.tolist() == [row == 3 for row in range(18)]


def test_a_learned_run_is_extended_and_learned_from_again(
    parent: Path, tuesday: Path, unlike: dict[str, Any]
) -> None:
    review = Review(parent)
    review.decide(Name("0", "scratch"), move(review, [0, 1], "new-a", "dent"))
    learned = learn(parent, quiet=True).folder
    unlike["rows"] = slice(1, 6)
    new = extended(learned, tuesday)
    names = [one["name"] for one in json.loads((new / class_list.FILE).read_text())["classes"]]
    assert names[0] == "scratch" and names[2:] == ["dent", "class 3"]
    later = Review(new)
    assert later.state.name_of(later.state.class_of(0)) == "dent"
    assert len(later.graph.looks) == 18
    later.decide(Name("3", "crack"))
    again = learn(new, quiet=True)
    assert again.metrics["learning"]["parent"] == str(new)
    assert Classifier(again.folder, device="cpu").class_names[2:] == ("dent", "crack")


def test_regions_that_wait_stay_unknown_until_somebody_decides(
    parent: Path, tuesday: Path, unlike: dict[str, Any]
) -> None:
    unlike["rows"] = slice(4, 6)  # too few for a class
    new = extended(parent, tuesday)
    review = Review(new)
    review.decide(move(review, [16], "1"))
    learned = learn(new, quiet=True).folder
    found = [row["class"] for row in table(learned / "regions.csv")]
    assert found[16:] == ["1", "unknown"]
    network = Classifier(learned, device="cpu").network
    kept = waiting.read(learned, np.array([17]), network.vit.width)
    assert kept.rows.tolist() == [17]
    seen = known_regions.read_seen(learned, network.vit.width)
    before = known_regions.read_seen(new, network.vit.width)
    assert seen is not None and before is not None
    assert len(seen[0].features) == len(before[0].features) + 1
