"""Photographs of any number and kind, one at a time or together, interrupted or not."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anomalyncd.config import PredictConfig
from anomalyncd.decisions import journal as decisions
from anomalyncd.decisions.actions import Name, decided_now
from anomalyncd.errors import InputError
from anomalyncd.prediction import classifier as classifying
from anomalyncd.prediction import stream
from anomalyncd.prediction.journal import RECORDS, Journal
from anomalyncd.prediction.neighbours import Neighbours
from anomalyncd.prediction.predict import RESULTS, predict_all
from tests.helpers.finished import draw_photograph, draw_photographs, finished_run
from tests.helpers.reviewed import make_run
from tests.helpers.runs import composed, table

N = 12


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in bfloat16, which rounds most, with new photographs and their maps."""
    root = tmp_path_factory.mktemp("product")
    draw_photographs(root, N)
    finished_run(root / "run", precision="bfloat16")
    return root


def config(product: Path, output: Path, *settings: str, path: str = "photos") -> PredictConfig:
    given = () if any(s.startswith("path=") for s in settings) else (f"path={product / path}",)
    made = (f"run={product / 'run'}", f"detector.path={product / 'maps'}", f"output={output}")
    return composed([*made, "device=cpu", *given, *settings], "predict")


def results(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in RESULTS}


@pytest.fixture(scope="module")
def whole(product: Path) -> dict[str, bytes]:
    """The files of a prediction that nothing has interrupted."""
    folder = product / "whole"
    assert predict_all(config(product, folder)).new == N
    assert {path.name for path in folder.iterdir()} == {*RESULTS, RECORDS, ".tiles.jsonl"}
    return results(folder)


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.fixture(scope="module")
def alone(product: Path) -> tuple[classifying.Classifier, list[classifying.Prediction]]:
    """The classifier, and what it says of each photograph alone."""
    classifier = classifying.Classifier(product / "run", device="cpu", unknown_share=0)
    return classifier, [classifier.predict([p], [m])[0] for p, m in of(product, range(N))]


def of(product: Path, numbers: object) -> list[tuple[Path, np.ndarray]]:
    return [
        (product / "photos" / f"{i:04}.png", cv2.imread(str(product / f"maps/{i:04}.png"), 0))
        for i in numbers  # type: ignore[attr-defined]
    ]


@settings(max_examples=8)
@given(order=st.permutations(range(N)), size=st.integers(1, N), batch=st.integers(1, 64))
def test_an_image_gets_the_same_class_in_any_company(
    order: list[int],
    size: int,
    batch: int,
    product: Path,
    alone: tuple[classifying.Classifier, list[classifying.Prediction]],
) -> None:
    classifier, known = alone
    classifier.network.forward_batch = batch
    with threads(1 + batch % 2):
        paths, maps = zip(*of(product, order[:size]), strict=True)
        found = classifier.predict(list(paths), list(maps))
    for i, prediction in zip(order, found, strict=False):
        assert prediction.class_id == known[i].class_id
        assert prediction.confidence == pytest.approx(known[i].confidence, abs=1e-5)
        for region, its_own in zip(prediction.regions, known[i].regions, strict=True):
            assert (region.box, region.class_id) == (its_own.box, its_own.class_id)
            assert region.confidence == pytest.approx(its_own.confidence, abs=1e-5)


@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_killed_prediction_resumes_to_the_same_bytes(
    after: int,
    product: Path,
    whole: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Killed while a line was written: the line is dropped, all before it is kept."""
    append, calls = Journal.append, iter(range(100))

    def killed(journal: Journal, records: list, tiles: list) -> None:
        if next(calls) == after:
            journal.folder.mkdir(exist_ok=True)
            for name in (RECORDS, ".tiles.jsonl"):
                with (journal.folder / name).open("a") as file:
                    file.write('{"kind": "ima')
            raise KeyboardInterrupt
        append(journal, records, tiles)

    given = config(product, tmp_path / "out")
    with monkeypatch.context() as patched:
        patched.setattr(Journal, "append", killed)
        with pytest.raises(KeyboardInterrupt):
            predict_all(given)
    resumed = predict_all(config(product, tmp_path / "out"))
    kept = 2**after - 1  # groups of 1, 2, 4, … photographs
    assert (resumed.known, resumed.new) == (kept, N - kept)
    assert results(tmp_path / "out") == whole


def test_a_finished_prediction_is_recognised_without_the_network(
    product: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = predict_all(config(product, tmp_path / "out"))
    monkeypatch.setattr(classifying.Classifier, "__init__", None)
    again = predict_all(config(product, tmp_path / "out"))
    assert (again.known, again.new) == (N, 0)
    assert (again.counts, again.defects) == (first.counts, first.defects)


def test_only_new_and_changed_photographs_are_classified(product: Path, tmp_path: Path) -> None:
    draw_photographs(tmp_path, 4)
    (tmp_path / "run").symlink_to(product / "run")
    out = tmp_path / "out"
    predict_all(config(tmp_path, out))
    draw_photograph(tmp_path, "0004", 7)
    os.utime(tmp_path / "photos" / "0002.png", ns=(1, 1))
    assert predict_all(config(tmp_path, out)).new == 2
    assert [row["id"] for row in table(out / "predictions.csv")] == [f"{i:04}" for i in range(5)]
    (out / "predictions.csv").write_text("with my notes")
    draw_photograph(tmp_path, "0005", 8)
    assert predict_all(config(tmp_path, out)).new == 1
    assert (out / "predictions.csv.old-1").read_text() == "with my notes"
    assert not (out / "regions.csv.old-1").exists()


def test_an_image_is_classified_again_if_its_map_was_made_again(
    product: Path, tmp_path: Path
) -> None:
    draw_photographs(tmp_path, 4)
    (tmp_path / "run").symlink_to(product / "run")
    out, maps = tmp_path / "out", tmp_path / "maps"
    predict_all(config(tmp_path, out))
    os.utime(maps / "0001.png", ns=(1, 1))
    again = predict_all(config(tmp_path, out))
    assert (again.new, again.known) == (1, 3)
    maps.rename(tmp_path / "old")
    maps.mkdir()
    assert predict_all(config(tmp_path, out)).known == 4, "maps that are gone are no other maps"
    (maps / "panel").mkdir()
    with pytest.raises(InputError, match="made with another run, other maps"):
        predict_all(config(tmp_path, out, "category=panel"))


def test_two_photographs_are_never_called_the_same(product: Path, tmp_path: Path) -> None:
    (tmp_path / "run").symlink_to(product / "run")
    draw_photographs(tmp_path, 2)
    pile, inner = tmp_path / "photos", tmp_path / "photos" / "day"
    inner.mkdir()
    for folder in (inner, tmp_path / "day"):
        folder.mkdir(exist_ok=True)
        (folder / "a.png").write_bytes((pile / "0000.png").read_bytes())
    (tmp_path / "maps" / "day").mkdir()
    (tmp_path / "maps" / "day" / "a.png").write_bytes((tmp_path / "maps" / "0000.png").read_bytes())
    out = tmp_path / "out"
    predict_all(config(tmp_path, out, "category=panel"))
    both = f"path=[{tmp_path / 'day'},{pile}]"
    with pytest.raises(InputError, match=r"day/a\.png: would be called day/a in the tables"):
        predict_all(config(tmp_path, out, "category=panel", both))


def test_predictions_of_other_photographs_are_not_replaced(product: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    predict_all(config(product, out))
    (tmp_path / "maps").symlink_to(product / "maps")
    draw_photographs(tmp_path / "other", 2)
    with pytest.raises(InputError, match=rf"holds {N} photographs that are not among these"):
        predict_all(config(product, out, path=str(tmp_path / "other" / "photos")))
    with pytest.raises(
        InputError, match=r"made with another run, other maps.* or another unknown_share"
    ):
        predict_all(config(product, out, "unknown_share=0.3"))
    settings = [f"run={product / 'run'}", f"detector.path={product / 'maps'}", "device=cpu"]
    paths = (product / "photos", tmp_path / "other" / "photos", product / "photos")
    folders = [
        predict_all(composed([*settings, f"path={path}"], "predict")).folder.name for path in paths
    ]
    assert folders == ["predictions", "predictions-2", "predictions"]


def test_bad_files_are_listed_and_the_others_are_done(product: Path, tmp_path: Path) -> None:
    draw_photographs(tmp_path, 6)
    (tmp_path / "run").symlink_to(product / "run")
    bad = tmp_path / "photos" / "0003.png"
    good = bad.read_bytes()
    bad.write_bytes(good[:200])
    (tmp_path / "photos" / "0001.png").write_text("<html>")
    found = predict_all(config(tmp_path, tmp_path / "out"))
    assert found.new == 4 and len(found.problems) == 2
    listed = table(tmp_path / "out" / "unreadable.csv")
    assert [Path(row["image"]).name for row in listed] == ["0001.png", "0003.png"]
    assert "a web page under the name .png" in listed[0]["problem"]
    bad.write_bytes(good)
    assert predict_all(config(tmp_path, tmp_path / "out")).new == 1
    assert len(table(tmp_path / "out" / "unreadable.csv")) == 1


def test_photographs_are_named_by_files_patterns_and_a_list(
    product: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = product / "photos"
    lines = f"{photos / '0003.png'}\n\n{photos / 'gone.png'}\n".encode()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(lines)))
    words = f"path=['{photos / '0001.png'}','{photos}/*[01].png','-']"
    found = predict_all(config(product, tmp_path / "out", words))
    rows = table(tmp_path / "out" / "predictions.csv")
    assert [row["id"] for row in rows] == ["0001", "0000", "0010", "0011", "0003"]
    assert list(found.problems) == [str(photos / "gone.png")]
    with pytest.raises(InputError, match="no file matches this pattern"):
        predict_all(config(product, tmp_path / "other", f"path={photos}/*.jpg"))


def test_every_nth_frame_of_a_video_is_an_image(product: Path, tmp_path: Path) -> None:
    codec = cv2.VideoWriter.fourcc(*"MJPG")
    writer = cv2.VideoWriter(str(tmp_path / "line.avi"), codec, 10, (64, 48))
    for i in range(7):
        writer.write(cv2.imread(str(product / "photos" / f"{i:04}.png")))
    writer.release()
    for number in (0, 3, 6):
        (tmp_path / "maps" / "line").mkdir(parents=True, exist_ok=True)
        os.link(product / f"maps/{number:04}.png", tmp_path / f"maps/line/{number:06}.png")
    (tmp_path / "run").symlink_to(product / "run")
    given = config(tmp_path, tmp_path / "out", "every=3", path="line.avi")
    assert predict_all(given).new == 3
    rows = table(tmp_path / "out" / "predictions.csv")
    assert [row["id"] for row in rows] == ["line/000000", "line/000003", "line/000006"]
    assert rows[1]["image"] == f"{tmp_path / 'line.avi'}#3"
    again = predict_all(given)
    assert (again.known, again.new) == (3, 0)
    changed = tmp_path / "maps" / "line" / "000003.png"
    changed.write_bytes(changed.read_bytes())  # made again
    assert predict_all(given).new == 3


def test_each_image_is_passed_on_as_it_comes(product: Path, tmp_path: Path) -> None:
    seen: list[str] = []
    done = tmp_path / "out" / RECORDS

    def on_record(record: dict) -> None:
        kept = [json.loads(line) for line in done.read_text().splitlines()]
        assert record in kept  # on disk before anybody hears of it
        seen.append(record["id"])

    given = config(product, tmp_path / "out", "overlays=true")
    predict_all(given, on_record)
    assert seen == [f"{i:04}" for i in range(N)]
    assert len(list((tmp_path / "out" / "overlays").iterdir())) == N
    predict_all(given, on_record)
    assert len(seen) == 2 * N


def test_an_unknown_kind_to_fail_on_is_rejected_before_anything_is_classified(
    product: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="fail_on=dint: no such class; expected good, dent, class"):
        predict_all(config(product, tmp_path / "out", "fail_on=[dint]"))
    assert not (tmp_path / "out").exists()


def test_the_page_has_no_more_pictures_of_a_class_than_its_share(
    product: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "TILES_OF_CLASS", 1)
    predict_all(config(product, tmp_path / "out"))
    lines = (tmp_path / "out" / ".tiles.jsonl").read_text().splitlines()
    names = [json.loads(line)["class_name"] for line in lines]
    assert sorted(names) == sorted(set(names))


def test_records_stay_when_only_the_page_is_made_again(product: Path, tmp_path: Path) -> None:
    given = config(product, tmp_path / "out")
    folder = predict_all(given).folder
    records = (folder / "predictions.jsonl").read_bytes()
    (folder / "report.html").unlink()
    again = predict_all(given)
    assert (again.known, again.new) == (N, 0)
    assert (folder / "report.html").is_file()
    assert (folder / "predictions.jsonl").read_bytes().startswith(records)
    assert predict_all(given).known == N


@pytest.mark.parametrize(
    "fault",
    [
        {"id": 3},
        {"confidence": "high"},
        {"class_name": ["good"]},
        {"class_name": "no class of the run"},
        {"regions": [{"box": [0, 0, 4]}]},
        {"regions": 5},
    ],
)
def test_a_damaged_record_is_reported_in_one_line(
    product: Path, tmp_path: Path, fault: dict[str, object]
) -> None:
    out = tmp_path / "out"
    predict_all(config(product, out))
    first, image, *rest = (out / RECORDS).read_text().splitlines()
    damaged = json.dumps({**json.loads(image), **fault})
    (out / RECORDS).write_text("\n".join([first, damaged, *rest]) + "\n")
    (out / RESULTS[0]).unlink()  # so that it is made again
    with pytest.raises(InputError, match="a line is damaged"):
        predict_all(config(product, out))


def test_a_damaged_table_of_the_run_costs_only_the_similar_regions(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert Neighbours.of_run(tmp_path).known is None and not caplog.text, "of an earlier version"
    (tmp_path / "features.safetensors").write_bytes(b"")
    (tmp_path / "predictions.csv").write_text("id,image\n")
    (tmp_path / "regions.csv").write_text("id\n")
    assert Neighbours.of_run(tmp_path).known is None
    assert "regions.csv" in caplog.text and "no similar regions are shown" in caplog.text


def test_similar_regions_have_the_names_of_the_review(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    known = Neighbours.of_run(run).known
    assert known is not None and "class 1" in known.class_names
    decisions.Journal(run).append([decided_now(Name("1", "scratch"))])
    named = Neighbours.of_run(run).known
    assert named is not None and "scratch" in named.class_names
    assert "class 1" not in named.class_names
