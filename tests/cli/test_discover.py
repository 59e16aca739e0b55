"""`anomalyncd discover`: what it plans, what it prints, and where the results are."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from anomalyncd.cli import discover, run
from anomalyncd.cli.discover import overrides_for, plan, settled
from anomalyncd.cli.discover.check import Request
from anomalyncd.cli.settings import composing
from anomalyncd.models import weights
from tests.helpers.settings import PHOTOGRAPHS

SMALL = (
    *("device=cpu", "backbone.image_size=32", "detector.backbone.image_size=32", "tracker=none"),
    *("base=none", "train.epochs=1", "train.hidden=16", "train.heads=2", "train.cached_views=2"),
)


@pytest.fixture
def commanded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, list[str], list[str]]]:
    """Runs `anomalyncd discover …`; gives its status and what it printed."""

    def call(*arguments: str) -> tuple[int, list[str], list[str]]:
        monkeypatch.setattr(sys, "argv", ["anomalyncd discover", *arguments])
        status = discover.main()
        shown = capsys.readouterr()
        return status, shown.out.splitlines(), shown.err.splitlines()

    return call


def test_photographs_become_classes(
    photographs: Path, commanded: Callable[..., tuple[int, list[str], list[str]]]
) -> None:
    folder = photographs / "photos"
    given = [str(folder), "--classes", "2", f"output_root={photographs / 'out'}", *SMALL]
    status, shown, plan_shown = commanded(*given)
    assert status == 0
    text = "\n".join(plan_shown)
    for line in (
        f"Photographs:  {len(PHOTOGRAPHS)} in {folder}, 64 × 48 pixels",
        "Detector:     reference: photographs are compared with each other",
        "Backbone:     embedded, small and fast",
        "Base set:     none",
        "Classes:      2, with the defect-free one",
        "Time:         about ",
    ):
        assert line in text
    ((report),) = (photographs / "out").rglob("report.html")
    assert shown[-2] == f"Run folder: {report.parent}"
    assert shown[-1] == f"Report: {report}"
    metrics = json.loads((report.parent / "metrics.json").read_text())
    assert metrics["counts"]["novel_classes"] == 2 and metrics["seconds"]["total"] > 0
    with (report.parent / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["id"] for row in rows) == sorted(PHOTOGRAPHS)
    counts = {row["class_name"]: 0 for row in rows}
    for row in rows:
        counts[row["class_name"]] += 1
    assert shown[0] == f"{len(rows)} photographs in {len(counts)} classes:"
    listed = [line.split("mean confidence")[0].rsplit(maxsplit=1) for line in shown[1:3]]
    assert {name.strip(): int(count) for name, count in listed[: len(counts)]} == counts
    assert any(f"anomalyncd predict {report.parent} NEW_PHOTOS" in line for line in shown)

    status, shown, plan_shown = commanded(*given)
    assert status == 0 and shown[-2] == f"Run folder: {report.parent}"
    assert not any(line.startswith("Time:") for line in plan_shown)
    assert any(line.startswith("Finished before: ") for line in plan_shown)


def test_known_good_photographs_are_compared_with() -> None:
    alone = composing.compose(overrides_for(Request("photos", classes=3)))
    compared = composing.compose(overrides_for(Request("photos", good="good", classes=3)))
    assert alone.detector.kind == compared.detector.kind == "reference"
    assert (alone.dataset.good, compared.dataset.good) == (None, "good")
    for config in (alone, compared):
        assert config.dataset.subfolders == "pile" and config.base.kind == "embedded"
        assert config.backbone.name == "embedded" and config.novel_classes == 3
        assert config.train.features == "cached"


def test_settings_of_the_user_come_first() -> None:
    given = ("base=none", "backbone=dino_vits16", "detector=musc", "train.epochs=3")
    config = composing.compose(overrides_for(Request("photos", settings=given)))
    assert config.base.kind == "none" and config.backbone.name == "vit_small_patch16_224.dino"
    assert config.detector.backbone.name == "vit_large_patch14_clip_336.openai"
    assert config.train.epochs == 3


@pytest.mark.parametrize(
    ("here", "device", "option"),
    [(True, "cuda", "dino_vitb8"), (False, "cuda", "embedded"), (True, "cpu", "embedded")],
)
def test_dino_needs_its_weights_and_a_gpu(
    here: bool, device: str, option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "at_hand", lambda name: here)
    monkeypatch.setattr(plan.devices, "choose", lambda device: torch.device(device))
    assert plan.backbone_option(device) == option


def test_weights_are_found_without_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert weights.at_hand("embedded")
    file = tmp_path / "model.safetensors"
    monkeypatch.setattr(weights, "try_to_load_from_cache", lambda *_: str(file))
    assert not weights.at_hand(weights.DINO)
    file.touch()
    assert weights.at_hand(weights.DINO) and not weights.at_hand("no such network")


def test_the_time_grows_with_photographs_and_training(
    photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "_timed", lambda compute: 0.1)
    config, _ = settled(Request(str(photographs / "photos"), classes=2, settings=SMALL))
    longer, _ = settled(
        Request(str(photographs / "photos"), classes=2, settings=(*SMALL[:-4], "train.epochs=50"))
    )
    cpu = torch.device("cpu")
    few, many = (plan.estimated_seconds(config, n, 0, cpu) for n in (100, 1000))
    assert 3 * few < many
    assert plan.estimated_seconds(longer, 100, 0, cpu) > few


def test_a_folder_without_word_of_maps_is_discovered() -> None:
    given = ["dataset=folder", "dataset.path=p", "--cfg", "job"]
    defaults = ["experiment=discover", "base=embedded", "backbone=embedded"]
    discovered = run._with_discovery(given)
    assert discovered == [
        given[0], *defaults, "detector=reference", *given[1:]
    ]  # fmt: skip
    assert "base=embedded" not in run._with_discovery(["base=none", *given])
    for own in ("detector.path=maps", "detector=musc", "experiment=offline_cpu"):
        assert run._with_discovery([*given, own]) == [*given, own]
    for other in (["dataset=mvtec", "dataset.path=p"], ["dataset=folder"]):
        assert run._with_discovery(other) == other
