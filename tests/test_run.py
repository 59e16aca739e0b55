"""Whole runs: files, resuming, repeating, rejected input, and that nothing else is changed."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image

from anomalyncd import anomaly_maps, experiment
from anomalyncd.cli.settings import entry
from anomalyncd.config import FolderConfig
from anomalyncd.data import datasets
from anomalyncd.detectors import map_store
from anomalyncd.errors import InputError
from anomalyncd.evaluation import metrics
from anomalyncd.inference.classify import Classified, novel_probabilities
from anomalyncd.models import checkpoint
from anomalyncd.models.model import Model
from anomalyncd.prediction import classifier as classifying
from anomalyncd.prediction import predict as prediction
from anomalyncd.regions import cropping
from anomalyncd.results import known_regions
from anomalyncd.run import execute
from anomalyncd.runtime import tracking
from anomalyncd.storage.cache import Cache
from anomalyncd.storage.jobs import find
from anomalyncd.storage.run_folder import hold
from anomalyncd.training import train
from anomalyncd.training.state import TrainingState
from anomalyncd.types import Regions
from tests.helpers.runs import ROOT, command, composed, folder_overrides, run, table
from tests.helpers.settings import MAP_NAMES


def test_a_run_writes_all_its_files(overrides: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = MagicMock()
    monkeypatch.setattr(tracking, "create", lambda *_: tracker)
    outcome = run(overrides)
    names = {path.name for path in outcome.folder.iterdir() if path.name[0] != "."}
    assert names == {
        *("config.yaml", "metrics.json", "predictions.csv", "regions.csv"),
        *("model.safetensors", "features.safetensors", "log.txt", "report.html", "inputs.json"),
    }
    figures = json.loads((outcome.folder / "metrics.json").read_text())
    assert figures == outcome.metrics
    assert figures["counts"]["images"] == 4 + 6 * 3 + 2
    assert figures["counts"]["novel_classes"] == 7
    assert all(0 <= figures["detection"][rate] <= 1 for rate in ("fpr", "fnr"))
    assert all(0 <= figures["normal_recall"][level] <= 1 for level in ("image", "region"))
    for level in ("image", "region"):
        assert 0 <= figures["scores"][level]["nmi"] <= 1
        assert 1 / 7 <= figures["scores"][level]["f1"] <= 1
    assert {"maps", "regions", "train", "classify", "report", "total"} <= figures["seconds"].keys()
    seconds = dict(figures["seconds"])
    assert seconds.pop("total") == pytest.approx(sum(seconds.values()), abs=0.01)
    assert all(0 <= s < 600 for s in seconds.values())
    assert tracker.log.call_count == 2
    assert tracker.log.call_args.args == (figures["losses"], 1), "those of the last epoch"
    level_scores = {
        f"{level}/{k}": v for level, s in figures["scores"].items() for k, v in s.items()
    }
    tracker.summarise.assert_called_once_with(level_scores)
    tracker.finish.assert_called_once_with()
    assert figures["versions"]["torch"]
    assert figures["threads"] == torch.get_num_threads()
    assert figures["seed"] == 3407
    assert figures["warnings"] == []
    images = table(outcome.folder / "predictions.csv")
    regions = table(outcome.folder / "regions.csv")
    assert len(images) == figures["counts"]["images"]
    assert len(regions) == figures["counts"]["regions"]
    assert {row["id"] for row in regions} == {row["id"] for row in images}
    known = known_regions.read(outcome.folder)
    network, metadata = checkpoint.load_model(outcome.folder / "model.safetensors")
    logits = network.heads.classify(torch.from_numpy(known.tokens))
    found = novel_probabilities(
        logits[metadata.head], network.n_base, metadata.train.student_temperature
    )
    assert found.argmax(-1).tolist() == known.classes.tolist(), "the tokens are of these regions"
    unscored = [row for row in images if row["id"].startswith("combined/")]
    assert len(unscored) == 2
    assert all(row["true_class"] == "" for row in unscored)
    page = (outcome.folder / "report.html").read_text(encoding="utf-8")
    assert "untrained" not in page
    assert "simulated" in page
    log = (outcome.folder / "log.txt").read_text(encoding="utf-8")
    assert "7 classes to find (counted from the label folders)" in log
    assert "epoch 2" in log


def test_the_same_run_gives_the_same_figures_and_another_seed_its_own_folder(
    overrides: list[str], tmp_path: Path
) -> None:
    first = run(overrides)
    second = run([*overrides, f"output_root={tmp_path / 'again'}"])
    for key in ("scores", "losses", "head", "counts"):
        assert first.metrics[key] == second.metrics[key]
    other = run([*overrides, "seed=1"])
    assert other.folder.parent == first.folder.parent
    assert other.metrics["losses"] != first.metrics["losses"]


def test_a_finished_run_is_recognised_and_rerun_only_when_asked(overrides: list[str]) -> None:
    first = run(overrides)
    stamp = (first.folder / "metrics.json").stat().st_mtime_ns
    again = run(overrides)
    assert again.was_finished
    assert (first.folder / "metrics.json").stat().st_mtime_ns == stamp
    assert not list(first.folder.parent.glob("*.old-*"))
    notes = first.folder / "my notes.txt"
    notes.write_text("keep me")
    third = run([*overrides, "rerun=true"])
    assert not third.was_finished
    assert third.metrics["scores"] == first.metrics["scores"]
    aside = first.folder.with_name(first.folder.name + ".old-1")
    assert (aside / "my notes.txt").read_text() == "keep me"


def test_a_rerun_that_was_killed_is_resumed_and_one_that_failed_starts_from_scratch(
    overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A requeued job repeats the same command."""
    first = run(overrides)
    save = TrainingState.save

    def interrupted(error: BaseException) -> None:
        def save_and_stop(*given: Any) -> None:
            save(*given)
            raise error

        monkeypatch.setattr(TrainingState, "save", save_and_stop)
        with pytest.raises(type(error)):
            run([*overrides, "rerun=true"])
        monkeypatch.setattr(TrainingState, "save", save)

    def archived() -> int:
        return len(list(first.folder.parent.glob("*.old-*")))

    interrupted(KeyboardInterrupt())
    again = run([*overrides, "rerun=true"])
    assert again.metrics["resumed_after_epochs"] == 1 and archived() == 1
    assert again.metrics["losses"] == first.metrics["losses"]
    assert not (first.folder / "progress.json").exists()
    interrupted(Stop())
    assert run([*overrides, "rerun=true"]).metrics["resumed_after_epochs"] == 0
    assert archived() == 3
    assert run(overrides).was_finished


def test_a_finished_run_is_returned_from_a_disk_that_cannot_be_written(
    photographs: Path, overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = [*folder_overrides(photographs, overrides), "novel_classes=2", "train.epochs=1"]
    first = run(settings)
    lock = first.folder.with_name(f".{first.folder.name}.lock")
    lock.unlink(missing_ok=True)

    def refuse(*_: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(FileLock, "acquire", refuse)
    again = run(settings)
    assert again.was_finished and again.metrics == first.metrics
    (first.folder / "training.safetensors").touch()  # the run was killed just before
    with pytest.raises(InputError, match="Read-only"):
        run(settings)


def test_a_run_killed_in_mid_epoch_resumes_to_the_same_figures(
    overrides: list[str], tmp_path: Path
) -> None:
    longer = [*overrides, "train.epochs=60"]
    whole = run([*longer, f"output_root={tmp_path / 'whole'}"])
    process = subprocess.Popen([sys.executable, str(ROOT / "train.py"), *longer])
    deadline = time.monotonic() + 120
    while not (states := list((tmp_path / "out").rglob("training.safetensors"))):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert states[0].exists()
    assert not (states[0].parent / "metrics.json").exists()
    resumed = run(longer)
    for key in ("scores", "losses", "head"):
        assert resumed.metrics[key] == whole.metrics[key]
    assert not states[0].exists()
    assert not list(tmp_path.rglob("*.features"))


def test_two_processes_under_torchrun_train_to_the_same_result_as_one(overrides: list[str]) -> None:
    alone = run(overrides)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    elsewhere = [*overrides, f"output_root={alone.folder.parents[4] / 'together'}"]
    together = subprocess.run(
        [sys.executable, *torchrun, "train.py", *elsewhere],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert together.returncode == 0, together.stderr
    assert together.stdout.count("NMI") == 1, "one result is printed, not two"
    found = execute(composed(elsewhere))
    assert found.was_finished
    assert found.metrics["losses"] == pytest.approx(alone.metrics["losses"], rel=1e-4)
    assert found.metrics["scores"] == alone.metrics["scores"]


def test_settings_that_torchrun_does_not_support_are_reported_at_once(
    overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("anomalyncd.run._rank", lambda: 0)
    with pytest.raises(InputError, match="works in one process, not under torchrun"):
        run([*overrides, "discovery.members=4"])
    monkeypatch.setenv("WORLD_SIZE", "2")
    done = command("-m", *overrides, "seed=1,2")
    assert done.returncode == 1
    assert done.stderr.count("call torchrun for each job") >= 1


def test_two_processes_do_not_compute_one_run(overrides: list[str]) -> None:
    from anomalyncd.storage.run_folder import RunFolder

    with (
        RunFolder.of(composed(overrides)).held(),
        pytest.raises(InputError, match="another process computes this run"),
    ):
        run(overrides)


def test_a_base_class_with_the_name_of_a_novel_one_changes_nothing(
    overrides: list[str], tmp_path: Path
) -> None:
    """Base and novel regions are distinguished by their source, never by a class name."""
    for name, target in (("plain", "dent"), ("clash", "scratch")):
        rng = np.random.default_rng(0)
        for i in range(4):
            image = rng.integers(0, 255, (40, 40, 3)).astype(np.uint8)
            mask = np.zeros((40, 40), np.uint8)
            mask[10:20, 10:25] = 255
            for kind, pixels in (("images", image), ("masks", mask)):
                path = tmp_path / name / kind / target / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
    small = [o for o in overrides if not o.startswith("base.")]
    results = [
        run([*small, "base=folder", f"base.path={tmp_path / name}"]) for name in ("plain", "clash")
    ]
    assert results[0].metrics["losses"] == results[1].metrics["losses"]
    assert results[0].metrics["scores"] == results[1].metrics["scores"]


def test_the_scores_are_those_of_the_tables(overrides: list[str]) -> None:
    outcome = run(overrides)
    for level, name in (("image", "predictions.csv"), ("region", "regions.csv")):
        rows = [row for row in table(outcome.folder / name) if row["true_class"]]
        classes = sorted({row["true_class"] for row in rows})
        true = [classes.index(row["true_class"]) for row in rows]
        found = [int(row["class"]) for row in rows]
        assert outcome.metrics["scores"][level] == pytest.approx(asdict(metrics.score(true, found)))
        matched = metrics.match(true, found)
        recall = metrics.normal_recall(true, found, matched, classes.index("good"))
        assert outcome.metrics["normal_recall"][level] == pytest.approx(recall)
        if level == "image":
            names = {row["class"]: row["class_name"] for row in rows}
            assert names == {str(k): classes[matched[k]] for k in np.unique(found)}
        else:
            assert {row["class_name"] for row in rows} <= set(names.values()) | set(classes)
    rows = [row for row in table(outcome.folder / "predictions.csv") if row["true_class"]]
    names = {(row["class"], row["class_name"]) for row in rows}
    assert len(names) == len({number for number, _ in names}) == len({name for _, name in names})
    # a found class is called by the true one that it is matched with
    agreeing = [row["class_name"] == row["true_class"] for row in rows]
    assert outcome.metrics["scores"]["image"]["f1"] == pytest.approx(np.mean(agreeing))
    normal = [row["class_name"] == "good" for row in rows if row["true_class"] == "good"]
    assert outcome.metrics["normal_recall"]["image"] == pytest.approx(np.mean(normal))


class Stop(Exception):
    """Raised when the test has seen enough."""


def given_to_training(overrides: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[Any, ...]:
    """The network and the data that a run would train with."""
    given: list[Any] = []

    def watched(*arguments: Any, **_: Any) -> None:
        given.extend(arguments[:3])
        raise Stop

    monkeypatch.setattr(train, "train", watched)
    with pytest.raises(Stop):
        run([*overrides, "rerun=true"])
    monkeypatch.undo()
    return tuple(given)


def test_training_starts_from_weights_determined_by_the_seed(
    overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(*more: str) -> dict[str, torch.Tensor]:
        network, _, _ = given_to_training([*overrides, *more], monkeypatch)
        return {name: p.detach() for name, p in network.trainable()}

    torch.manual_seed(1)
    first = start()
    torch.manual_seed(2)
    again, other = start(), start("seed=1")
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["heads.prototypes"], other["heads.prototypes"])


def test_training_is_given_the_base_regions_with_their_classes(
    overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = [*overrides, "base.per_class=3", "train.heads=2", "novel_classes=5"]
    settings += ["forward_batch=7"]
    network, data, config = given_to_training(settings, monkeypatch)
    base = datasets.load_base(composed(settings).base, Cache(Path(composed(settings).cache_root)))
    assert base and base.labels
    n_base = len(base.labels.classes)
    expected = base.labels.targets[data.base.image_index]
    np.testing.assert_array_equal(data.base_targets, expected)
    assert set(expected) == set(range(n_base))
    assert network.n_base == n_base
    assert network.heads.prototypes.shape[:2] == (2, n_base + 5)
    assert network.forward_batch == 7
    assert config.heads == 2
    assert data.novel.image_index.max() == 4 + 6 * 3 + 2 - 1


OTHER_SETTINGS = [
    *("mebin.erosion=2", "mebin.step=6", "mebin.min_interval=3"),
    *("regions.padding=0.4", "regions.min_size=0.05", "regions.merge_distance=0.03"),
    *("regions.resize_mode=stretch", "attention.mask_threshold=0.2", "attention.mask_pooling=max"),
    *("attention.masked_blocks=3", "fusion.temperature=3", "fusion.area_unit=relative"),
    *("train.student_temperature=0.3", "train.precision=bfloat16"),
]


def test_prediction_uses_the_settings_of_the_run(photographs: Path, overrides: list[str]) -> None:
    """Region by region, to the last digit that is written."""
    path = photographs / "maps" / "5.png"
    scores = np.asarray(Image.open(path)).copy()
    scores[36:44, 2:10] = 205  # a second, smaller defect, so that there is something to fuse
    Image.fromarray(scores).save(path)
    settings = [*folder_overrides(photographs, overrides), "novel_classes=3", *OTHER_SETTINGS]
    outcome = run(settings)
    predict = [f"run={outcome.folder}", f"path={photographs / 'photos'}"]
    predict.append(f"detector.path={photographs / 'maps'}")
    folder = prediction.predict(composed([*predict, "device=cpu"], "predict"))
    for name in ("predictions.csv", "regions.csv"):
        assert table(folder / name) == table(outcome.folder / name)
    rows = table(folder / "regions.csv")
    assert [row["id"] for row in rows].count("5") == 2


@pytest.mark.parametrize("head", [0, 1])
def test_the_head_that_fits_best_is_used_in_the_run_and_for_new_images(
    head: int, photographs: Path, overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def each_head_its_class(network: Model, regions: Regions, **_: float) -> Classified:
        n_heads, n_classes, _ = network.heads.prototypes.shape
        found = np.zeros((n_heads, len(regions), n_classes - network.n_base))
        for number in range(n_heads):
            found[number, :, number] = 1
        return Classified(np.zeros((len(regions), 1), np.float32), found)

    monkeypatch.setattr(train, "best_head", lambda history: head)
    monkeypatch.setattr(experiment, "classify", each_head_its_class)
    monkeypatch.setattr(classifying, "classify", each_head_its_class)
    outcome = run([*folder_overrides(photographs, overrides), "novel_classes=3"])
    assert outcome.metrics["head"] == head
    predict = [f"run={outcome.folder}", f"path={photographs / 'photos'}"]
    predict.append(f"detector.path={photographs / 'maps'}")
    for folder in (outcome.folder, prediction.predict(composed(predict, "predict"))):
        for name in ("predictions.csv", "regions.csv"):
            assert {row["class"] for row in table(folder / name)} == {str(head)}


def test_without_labels_everything_but_scores(photographs: Path, overrides: list[str]) -> None:
    plain = folder_overrides(photographs, overrides)
    with pytest.raises(InputError, match="set how many classes to find"):
        run(plain)
    outcome = run([*plain, "novel_classes=3"])
    assert outcome.metrics["scores"] == {"image": None, "region": None}
    assert any("untrained" in warning for warning in outcome.metrics["warnings"])
    assert outcome.metrics["normal_recall"] == {"image": None, "region": None}
    assert outcome.metrics["detection"]["fpr"] is None
    rows = table(outcome.folder / "predictions.csv")
    assert [row["id"] for row in rows] == ["5", "6", "a.b", "c_crop", "d d", "é"]
    assert all(row["class_name"].startswith("class ") for row in rows)
    page = (outcome.folder / "report.html").read_text(encoding="utf-8")
    assert "Class 0 is meant for defect-free regions" in page
    with pytest.raises(InputError, match="novel_classes=40, but only"):
        run([*plain, "novel_classes=40"])


def test_each_setting_changes_its_own_results(photographs: Path, overrides: list[str]) -> None:
    plain = [*folder_overrides(photographs, overrides), "novel_classes=2"]
    default = run(plain)
    weighted = run([*plain, "fusion.weighting=average"])
    assert weighted.metrics["losses"] == default.metrics["losses"]  # fusion comes after training
    # "a.b" shows nothing, so that its region is the whole, oblong image
    fitted = run([*plain, "regions.resize_mode=compat"])
    assert fitted.metrics["losses"] != default.metrics["losses"]
    unmasked = run([*plain, "attention.masked_queries=none"])
    assert unmasked.metrics["losses"] != default.metrics["losses"]


def add_an_image(root: Path) -> None:
    for folder in ("photos", "maps"):
        shutil.copy(root / folder / "6.png", root / folder / "7.png")


def remove_an_image(root: Path) -> None:
    for folder in ("photos", "maps"):
        (root / folder / "6.png").unlink()


def turn_an_image(root: Path) -> None:
    path = root / "photos" / "6.png"
    Image.open(path).rotate(180).save(path)


def turn_a_map(root: Path) -> None:
    path = root / "maps" / "6.png"
    Image.open(path).rotate(180).save(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (turn_an_image, "1 image changed (6): it"),
        (turn_a_map, "1 anomaly map changed (6): it"),
        (add_an_image, "1 image added (7), 1 anomaly map added (7): it"),
        (remove_an_image, "1 image removed (6), 1 anomaly map removed (6): it"),
    ],
)
def test_a_finished_run_whose_inputs_have_changed_is_computed_again(
    change: Callable[[Path], None], message: str, photographs: Path, overrides: list[str]
) -> None:
    settings = [*folder_overrides(photographs, overrides), "novel_classes=2", "train.epochs=1"]
    first = run(settings)
    before = (first.folder / "predictions.csv").read_bytes()
    change(photographs)
    again = run(settings)
    assert not again.was_finished
    aside = first.folder.with_name("seed-3407.old-1")
    assert (aside / "predictions.csv").read_bytes() == before
    assert (aside / "metrics.json").exists()
    log = (again.folder / "log.txt").read_text(encoding="utf-8")
    assert f"Since this run finished: {message} is computed again; the old results are in" in log
    fresh = run([*settings, f"output_root={photographs / 'fresh'}"])
    for name in ("predictions.csv", "inputs.json"):
        assert (again.folder / name).read_bytes() == (fresh.folder / name).read_bytes()
    assert run(settings).was_finished


def test_touched_or_moved_files_are_the_same_inputs(
    photographs: Path, overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = [*folder_overrides(photographs, overrides), "novel_classes=2", "train.epochs=1"]
    run(settings)
    for path in (photographs / "photos").iterdir():
        os.utime(path)
    assert run(settings).was_finished
    monkeypatch.chdir(photographs)
    relative = ["dataset.path=maps/../photos/", "detector.path=./maps"]
    assert run([*settings, *relative, "forward_batch=3"]).was_finished


def test_a_finished_run_without_a_record_of_its_inputs_is_computed_again(
    photographs: Path, overrides: list[str]
) -> None:
    settings = [*folder_overrides(photographs, overrides), "novel_classes=2", "train.epochs=1"]
    folder = run(settings).folder
    for number, text in enumerate(("", "[1]", '{"image": 3}'), 1):
        (folder / "inputs.json").write_text(text)
        assert not run(settings).was_finished
        assert folder.with_name(f"seed-3407.old-{number}").exists()


def test_a_finished_run_is_kept_when_its_inputs_are_gone(
    photographs: Path, overrides: list[str]
) -> None:
    settings = [*folder_overrides(photographs, overrides), "novel_classes=2", "train.epochs=1"]
    folder = run(settings).folder
    os.rename(photographs / "photos", photographs / "away")
    known = {path.name: path.read_bytes() for path in folder.iterdir()}
    for in_a_sweep in (False, True):
        with pytest.raises(InputError, match=r"photos: no such folder"):
            execute(composed(settings), in_a_sweep=in_a_sweep)
    assert known == {path.name: path.read_bytes() for path in folder.iterdir()}
    (job,) = find([photographs / "out"])
    assert job.state == "done"
    predict = [f"run={folder}", f"path={photographs / 'away'}"]
    predict.append(f"detector.path={photographs / 'maps'}")
    prediction.predict(composed(predict, "predict"))


@pytest.fixture
def broken_off(
    photographs: Path, overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """The settings of a run that was interrupted after its training."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    settings = [*folder_overrides(photographs, overrides), "novel_classes=2"]
    monkeypatch.setattr(experiment, "assign", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(settings)
    monkeypatch.undo()
    return settings


def test_the_same_data_is_resumed(broken_off: list[str]) -> None:
    assert run(broken_off).metrics["resumed_after_epochs"] == 2


def test_other_data_is_not_resumed(photographs: Path, broken_off: list[str]) -> None:
    """A killed run resumes on the same data only; else it starts from scratch and says so."""
    turn_an_image(photographs)
    outcome = run(broken_off)
    assert outcome.metrics["resumed_after_epochs"] == 0
    assert "training starts from scratch" in (outcome.folder / "log.txt").read_text(
        encoding="utf-8"
    )


ON_ANOTHER_CPU = """
import os, sys
from hydra import compose, initialize_config_dir
from anomalyncd.cli.settings import entry
from anomalyncd.run import execute
from anomalyncd.training.state import TrainingState

def run(overrides):
    with initialize_config_dir(os.path.abspath("configs"), version_base="1.3"):
        return execute(entry.validated(compose("train", overrides)))

entry.register_schemas()
finished, killed = ([*sys.argv[2:], f"seed={seed}"] for seed in (1, 2))
with open(sys.argv[1], "w") as file:
    file.write(str(run(finished).folder))
save = TrainingState.save
TrainingState.save = lambda *given: (save(*given), os._exit(9))
run(killed)
"""


def test_another_cpu_predicts_with_a_model_and_resumes_a_training(
    photographs: Path, overrides: list[str]
) -> None:
    """Position embeddings are resampled to 96 pixels: their last bits depend on the CPU."""
    plain = [o for o in folder_overrides(photographs, overrides) if not o.startswith("backbone")]
    settings = [*plain, "backbone=embedded", "backbone.image_size=96", "novel_classes=2"]
    arguments = ["-c", ON_ANOTHER_CPU, str(photographs / "folder"), *settings]
    elsewhere = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "ATEN_CPU_CAPABILITY": "default"},
        capture_output=True,
        text=True,
    )
    assert elsewhere.returncode == 9, elsewhere.stderr
    folder = (photographs / "folder").read_text()
    predict = [f"run={folder}", f"path={photographs / 'photos'}"]
    predict.append(f"detector.path={photographs / 'maps'}")
    rows = table(prediction.predict(composed(predict, "predict")) / "predictions.csv")
    trained = table(Path(folder) / "predictions.csv")
    for row, known in zip(rows, trained, strict=True):
        assert float(row["confidence"]) == pytest.approx(float(known["confidence"]), abs=1e-3)
    assert run([*settings, "seed=2"]).metrics["resumed_after_epochs"] == 1


def test_a_damaged_training_state_is_reported_and_rerun_helps(
    photographs: Path, broken_off: list[str]
) -> None:
    (state,) = (photographs / "out").rglob("training.safetensors")
    state.write_bytes(state.read_bytes()[:100])
    with pytest.raises(InputError, match=r"training\.safetensors: .*damaged.*rerun=true"):
        run(broken_off)
    assert run([*broken_off, "rerun=true"]).metrics["counts"]["images"] == 6


def test_maps_of_another_kind_are_refused_in_prediction(
    photographs: Path, overrides: list[str]
) -> None:
    """A float map alone would be stretched over itself: any image would look defective."""
    outcome = run([*folder_overrides(photographs, overrides), "novel_classes=2"])
    scores = np.asarray(Image.open(photographs / "maps" / "a.b.png")).astype(np.float32)
    for name in MAP_NAMES:
        (photographs / "floats").mkdir(exist_ok=True)
        np.save(photographs / "floats" / name.replace(".png", ".npy"), scores)
    settings = [
        *(f"run={outcome.folder}", f"path={photographs / 'photos'}"),
        f"detector.path={photographs / 'floats'}",
    ]
    with pytest.raises(InputError, match="these anomaly maps are not yet normalised"):
        prediction.predict(composed(settings, "predict"))
    assert not (outcome.folder / "predictions").exists()


def test_a_bad_truth_mask_stops_before_training(overrides: list[str], tmp_path: Path) -> None:
    root = tmp_path / "data" / "nut"
    rng = np.random.default_rng(0)
    for kind in ("good", "dent"):
        for i in range(3):
            for folder, name in (("test", f"{i}.png"), ("maps", f"{i}.png")):
                path = (root if folder == "test" else tmp_path) / folder / kind / name
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(rng.integers(0, 255, (40, 40)).astype(np.uint8)).save(path)
    for i in range(3):
        path = root / "ground_truth" / "dent" / f"{i}_mask.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((40, 40 - i), 255, np.uint8)).save(path)
    general = [o for o in overrides if not o.startswith(("dataset.", "base.", "detector="))]
    settings = [
        *("dataset=mvtec", "category=nut", "base=none", "backbone=vit_tiny_untrained"),
        *(f"dataset.path={tmp_path / 'data'}", f"detector.path={tmp_path / 'maps'}", *general),
        "mebin.erosion=0",
    ]
    with pytest.raises(
        InputError, match=r"1_mask\.png: a mask of 39 × 40 pixels for an image of 40"
    ):
        run(settings)
    truth = [o for o in settings if not o.startswith("detector.")]
    for path in (root / "ground_truth" / "dent").iterdir():
        path.unlink()
    with pytest.raises(InputError, match=r"no truth mask for .*dent/0\.png"):
        run([*truth, "detector=ground_truth"])


def test_file_names_that_are_not_unicode_work(photographs: Path, overrides: list[str]) -> None:
    odd = os.fsdecode(b"caf\xe9.png")
    for folder in ("photos", "maps"):
        os.rename(photographs / folder / "6.png", photographs / folder / odd)
    outcome = run([*folder_overrides(photographs, overrides), "novel_classes=2"])
    assert b"caf\xe9" in (outcome.folder / "predictions.csv").read_bytes()


def test_constant_maps_are_reported(photographs: Path, overrides: list[str]) -> None:
    for path in (photographs / "maps").iterdir():
        Image.fromarray(np.full((48, 64), 30, np.uint8)).save(path)
    with pytest.raises(InputError, match="no defect found: no main element in any of 6"):
        run([*folder_overrides(photographs, overrides), "novel_classes=2"])


def test_one_image_is_not_enough(photographs: Path, overrides: list[str]) -> None:
    for path in sorted((photographs / "photos").iterdir())[1:]:
        path.unlink()
    with pytest.raises(InputError, match=r"is the only image: expected at least 2"):
        run([*folder_overrides(photographs, overrides), "novel_classes=2"])


def test_one_class_folder_is_not_enough(photographs: Path, overrides: list[str]) -> None:
    os.rename(photographs / "photos", photographs / "good")
    (photographs / "photos").mkdir()
    os.rename(photographs / "good", photographs / "photos" / "good")
    with pytest.raises(InputError, match="found 1 class folder; expected at least 2"):
        run(folder_overrides(photographs, overrides))


def test_new_images_are_classified_as_in_training(photographs: Path, overrides: list[str]) -> None:
    outcome = run([*folder_overrides(photographs, overrides), "novel_classes=3"])
    new = photographs / "new"
    new.mkdir()
    for name in ("c_crop.png", "é.png"):
        os.link(photographs / "photos" / name, new / name)
    settings = [
        *(f"run={outcome.folder}", f"path={new}", f"detector.path={photographs / 'maps'}"),
        f"output='{photographs / 'new classes'}'",
    ]
    config = composed(settings, "predict")
    rows = table(prediction.predict(config) / "predictions.csv")
    trained = {row["id"]: row for row in table(outcome.folder / "predictions.csv")}
    assert [row["id"] for row in rows] == ["c_crop", "é"]
    for row in rows:
        for column in ("class", "confidence", "anomaly_score", "threshold", "regions"):
            assert row[column] == trained[row["id"]][column]
    with (
        pytest.raises(InputError, match="another process writes predictions there; wait for it"),
        hold(busy := photographs / "busy", "", ""),
    ):
        prediction.predict(replace(config, output=str(busy)))
    prediction.predict(config)  # nothing has changed, so nothing is computed
    for left, lost in (("predictions.csv", "regions.csv"), ("regions.csv", "predictions.csv")):
        (photographs / "new classes" / lost).unlink()
        (photographs / "new classes" / left).write_text("of the user")
        assert table(prediction.predict(config) / "predictions.csv") == rows
        assert (photographs / "new classes" / f"{left}.old-1").read_text() == "of the user"
    taken = composed([*settings, f"output='{photographs / 'photos' / 'd d.png'}'"], "predict")
    with pytest.raises(InputError, match=r"d\.png is not a folder; set output="):
        prediction.predict(taken)
    none = composed([*settings, f"run={new}", f"output={photographs / 'x'}"], "predict")
    with pytest.raises(InputError, match="expected the folder of a finished run"):
        prediction.predict(none)


def test_prediction_has_its_own_advice_on_memory(
    photographs: Path, overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = run([*folder_overrides(photographs, overrides), "novel_classes=3", "train.epochs=1"])

    def full(network: Model, *_: object, **__: object) -> None:
        assert network.forward_batch == 10
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(classifying, "classify", full)
    settings = [f"run={outcome.folder}", f"path={photographs / 'photos'}", "forward_batch=10"]
    config = composed([*settings, f"detector.path={photographs / 'maps'}"], "predict")
    with pytest.raises(InputError, match="out of memory on the device: set forward_batch=5 "):
        prediction.predict(config)


@pytest.mark.parametrize("method", ["fixed", "otsu", "adaptive"])
def test_prediction_uses_the_binarization_of_the_run(
    method: str, photographs: Path, overrides: list[str]
) -> None:
    settings = [*folder_overrides(photographs, overrides), "novel_classes=3"]
    outcome = run([*settings, f"mebin.method={method}", "mebin.threshold=0.25"])
    trained = {row["id"]: row for row in table(outcome.folder / "predictions.csv")}
    # 0.25 of 255; where a map has two values, Otsu's threshold is the lower one
    thresholds = {"fixed": {"63"}, "otsu": {"10", "255"}}
    if method in thresholds:
        found = {row["threshold"].partition(".")[0] for row in trained.values()}
        assert found == thresholds[method]
    assert trained["a.b"]["main_elements"] == "0"
    new = photographs / "new"
    new.mkdir()
    os.link(photographs / "photos" / "é.png", new / "é.png")
    predict = [f"run={outcome.folder}", f"path={new}", f"detector.path={photographs / 'maps'}"]
    (row,) = table(prediction.predict(composed(predict, "predict")) / "predictions.csv")
    for column in ("class", "confidence", "anomaly_score", "threshold", "main_elements"):
        assert row[column] == trained["é"][column]


def test_predicting_a_single_clean_image_works(photographs: Path, overrides: list[str]) -> None:
    outcome = run([*folder_overrides(photographs, overrides), "novel_classes=3"])
    clean = photographs / "clean"
    clean.mkdir()
    os.link(photographs / "photos" / "a.b.png", clean / "a.b.png")
    settings = [f"run={outcome.folder}", f"path={clean}", f"detector.path={photographs / 'maps'}"]
    rows = table(prediction.predict(composed(settings, "predict")) / "predictions.csv")
    assert rows[0]["main_elements"] == "0"


def test_a_run_on_computed_maps_can_predict_from_computed_maps(
    photographs: Path, overrides: list[str]
) -> None:
    """Computed maps record their raw range, so that new maps can be scaled like the run's."""
    floats = photographs / "raw"
    floats.mkdir()
    for name in MAP_NAMES:
        scores = np.asarray(Image.open(photographs / "maps" / name)) / np.float32(50)
        np.save(floats / name.replace(".png", ".npy"), scores)
    settings = [*folder_overrides(photographs, overrides), "novel_classes=2"]
    raw = [o for o in settings if not o.startswith("detector.path")]
    outcome = run([*raw, f"detector.path={floats}"])
    cache = Path(next(o for o in overrides if o.startswith("cache_root=")).partition("=")[2])
    made = max(cache.glob("maps-*"), key=lambda path: path.stat().st_mtime_ns)
    config = composed(
        [
            *(f"run={outcome.folder}", f"path={photographs / 'photos'}"),
            f"detector.path={made}",
        ],
        "predict",
    )
    rows = table(prediction.predict(config) / "predictions.csv")
    trained = table(outcome.folder / "predictions.csv")
    assert [row["class"] for row in rows] == [row["class"] for row in trained]
    assert [row["threshold"] for row in rows] == [row["threshold"] for row in trained]


def test_errors_are_one_line_and_leave_no_partial_result(
    photographs: Path, overrides: list[str]
) -> None:
    (photographs / "photos" / "5.png").write_bytes(b"broken")
    done = command(*folder_overrides(photographs, overrides), "novel_classes=3")
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")
    assert "5.png: cannot read this image" in done.stderr
    assert "Traceback" not in done.stderr
    left = {path.name for path in (photographs / "out").rglob("*") if path.is_file()}
    locks = {name for name in left if name.endswith(".lock")}
    assert left - locks <= {
        "config.yaml",
        "log.txt",
        "maps.json",
        "progress.json",
        "inputs.json",
        "entry.json",
        *MAP_NAMES,
    }


def test_the_advice_on_memory_resumes_the_run(
    photographs: Path, overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = [
        *folder_overrides(photographs, overrides),
        "novel_classes=2",
        "train.features=cached",
    ]

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(train, "step", full)
    with pytest.raises(InputError, match=r"^out of memory on the device: .* forward_batch=32"):
        run(settings)
    with pytest.raises(InputError, match=r"forward_batch is 1 already; train\.batch_size=32"):
        run([*settings, "forward_batch=1"])
    monkeypatch.undo()
    (failed,) = (photographs / "out").rglob("seed-3407")
    outcome = run([*settings, "forward_batch=32"])
    assert outcome.folder == failed
    views = 4 * outcome.metrics["counts"]["regions"]
    assert f"{views} views go through the frozen blocks; {views} of them are done already" in (
        (failed / "log.txt").read_text(encoding="utf-8")
    )


@pytest.mark.parametrize(
    ("detector", "advice"),
    [
        ("detector=musc_embedded", "lower detector.memory_gb=4 or detector.backbone.image_size="),
        ("detector=musc_descriptors", r"lower detector\.memory_gb=4$"),
        ("detector=padim", r"lower detector\.batch_size=\d+, or set a smaller detector.image_size"),
        ("detector=ground_truth", r"the detector \(ground_truth\) needs too much"),
    ],
)
def test_the_advice_on_memory_is_that_of_the_stage(
    detector: str, advice: str, overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(map_store, "collect", full)
    config = composed([*overrides[1:], detector])
    with pytest.raises(InputError, match=f"out of memory on the device: {advice}"):
        execute(config)
    with pytest.raises(InputError, match=f"out of memory on the device: {advice}"):
        anomaly_maps.make_maps(config)


def test_a_full_disk_is_one_message(
    overrides: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "regions.csv")

    monkeypatch.setattr(cropping, "crop_novel", full)
    monkeypatch.setattr(entry, "failures", [])
    with entry.one_line_errors(debug=False):
        run(overrides)
    assert "regions.csv: No space left on device; free space or set output_root=" in (
        capsys.readouterr().err
    )
    assert entry.failures


def test_an_output_place_that_is_a_file_is_one_message(
    overrides: list[str], tmp_path: Path
) -> None:
    (tmp_path / "taken").touch()
    with pytest.raises(InputError, match=r"cannot be written .* set output_root="):
        run([*overrides, f"output_root={tmp_path / 'taken'}"])


def test_a_sweep_continues_after_a_failed_job(photographs: Path, overrides: list[str]) -> None:
    """Three jobs in three folders; only the impossible one fails."""
    done = command(
        *("-m", *folder_overrides(photographs, overrides)), "novel_classes=2,99,3", "seed=5"
    )
    assert done.returncode == 1
    assert "novel_classes=99, but only" in done.stderr
    finished = list((photographs / "out").rglob("metrics.json"))
    assert len(finished) == 2
    assert len({path.parent for path in finished}) == 2


def test_a_failed_training_is_reported_and_writes_no_result(
    photographs: Path, overrides: list[str]
) -> None:
    """No loss shows that the last step was too large."""
    settings = [*folder_overrides(photographs, overrides), "novel_classes=2"]
    with pytest.raises(InputError, match=r"lower train\.learning_rate"):
        run([*settings, "train.learning_rate=1e20", "train.epochs=1"])
    left = {path.name for path in (photographs / "out").rglob("seed-3407/*")}
    assert not left & {"metrics.json", "model.safetensors", "predictions.csv", "report.html"}
    assert find([photographs / "out"])[0].state == "failed"


def test_damaged_figures_of_a_finished_run_are_one_line(
    photographs: Path, overrides: list[str]
) -> None:
    settings = [*folder_overrides(photographs, overrides), "novel_classes=2", "train.epochs=1"]
    figures = run(settings).folder / "metrics.json"
    for text in ("", "[]", '{"dataset": "folder"}', "[" * 100_000):
        figures.write_text(text)
        with pytest.raises(InputError, match=r"metrics\.json: .*rerun=true archives this folder"):
            run(settings)


def test_a_mistyped_path_leaves_no_run(photographs: Path, overrides: list[str]) -> None:
    settings = [*folder_overrides(photographs, overrides), "novel_classes=2"]
    with pytest.raises(InputError, match="no such folder"):
        run([*settings, "dataset.path=nowhere"])
    with pytest.raises(InputError, match="not usable here"):
        run([*settings, "device=cdua"])
    assert not (photographs / "out").exists(), "no empty folders, and no lock"
    good = next(o for o in settings if o.startswith("dataset.path=")).partition("=")[2]
    done = command("-m", *settings, "seed=5", "train.epochs=1", f"dataset.path=here,{good},there")
    assert done.returncode == 1
    states = {job.settings["dataset"]["path"]: job for job in find([photographs / "out"])}
    assert states[good].state == "done"
    for wrong in ("here", "there"):
        assert states[wrong].state == "failed"
        assert f"{wrong}: no such folder" in states[wrong].reason


def test_a_sweep_over_detectors_and_categories_ends_with_one_table(
    overrides: list[str], tmp_path: Path
) -> None:
    general = [o for o in overrides if not o.startswith("detector=")]
    choices = ["category=a,b", "detector=musc_descriptors,ground_truth,simulated", "train.epochs=1"]
    done = command("-m", *general, *choices)
    assert done.returncode == 0, done.stderr
    folders = sorted(
        path.parent.relative_to(tmp_path / "out" / "demo").parts[:2]
        for path in (tmp_path / "out").rglob("metrics.json")
    )
    detectors = ("ground_truth", "musc-descriptors", "simulated")
    assert folders == [(category, name) for category in "ab" for name in detectors]
    (written,) = (tmp_path / "out" / "sweeps").rglob("table.csv")
    rows = [(row["category"], row["detector"]) for row in table(written)]
    assert sorted(rows) == folders
    printed = done.stdout[done.stdout.rindex("product") :]
    for category, name in folders:
        assert re.search(rf"demo/{category} +{name} +3407( +-?[01]\.\d{{3}}){{5}}", printed)


def test_predict_names_its_own_settings(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    common = ("run=nowhere", f"path={tmp_path / 'neww'}")
    message = command(*common, "detector=musc_embedded", script="predict.py").stderr
    assert message.count("\n") == 1
    assert f"anomalyncd maps dataset=folder dataset.path={tmp_path / 'neww'} detector=" in message
    with pytest.raises(InputError, match=r"neww: no such folder; did you mean new\?.* path=…"):
        datasets.load(FolderConfig(path=str(tmp_path / "neww")), "c", Cache(tmp_path / "c"), "path")
