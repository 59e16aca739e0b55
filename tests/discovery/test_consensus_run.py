"""Whole runs with a consensus, of a small drawn product."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from anomalyncd.discovery import descriptors, members
from anomalyncd.errors import InputError
from anomalyncd.prediction.classifier import Classifier
from anomalyncd.training import losses, train
from tests.helpers.runs import composed, run, table

CONSENSUS = ["discovery.members=4", "train.features=cached", "train.cached_views=2"]


def not_called(*_: object, **__: object) -> NDArray:
    pytest.fail("computed again")


def test_a_consensus_estimates_the_number_and_leaves_one_network(
    overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = [*overrides, *CONSENSUS, "novel_classes=estimate", "train.epochs=60"]
    settings += ["train.learning_rate=0.05"]
    outcome = run(settings)
    figures = outcome.metrics
    k = figures["counts"]["novel_classes"]
    candidates = figures["novel_classes_candidates"]
    assert k in [candidate["k"] for candidate in candidates]
    assert len(figures["classes"]) == k
    assert all(0 <= one["stability"] <= 1 for one in figures["classes"])
    consensus = figures["consensus"]
    assert consensus["members"] == 4
    assert consensus["learned"] > 0.7
    assert figures["counts"]["base_regions"] == 0, "a consensus needs no base set"
    regions = table(outcome.folder / "regions.csv")
    assert {int(row["class"]) for row in regions} <= set(range(k))
    page = (outcome.folder / "report.html").read_text(encoding="utf-8")
    assert "How sure" in page
    assert consensus["summary"] in page
    assert "Other numbers of classes" in page
    assert len(Classifier(outcome.folder, device="cpu").class_names) == k

    # another number on the same photographs: nothing is described again
    monkeypatch.setattr(descriptors, "_described", not_called)
    other = run([*overrides, *CONSENSUS, f"novel_classes={k + 1}", "train.epochs=1"])
    assert other.metrics["counts"]["novel_classes"] == k + 1
    assert [c["k"] for c in other.metrics["novel_classes_candidates"]] == [k + 1]


def test_a_killed_consensus_resumes_with_the_same_result(
    overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = [*overrides, *CONSENSUS, "seed=5"]
    whole = run([*settings, f"output_root={tmp_path / 'whole'}", f"cache_root={tmp_path / 'c'}"])
    clustered: list[int] = []
    cluster, step = members.cluster, train.step

    def counted(member: members.Member, k: int, seed: int) -> NDArray[np.int64]:
        if len(clustered) == 3:
            raise KeyboardInterrupt
        clustered.append(member.number)
        return cluster(member, k, seed)

    with monkeypatch.context() as patch:
        patch.setattr(members, "cluster", counted)
        with pytest.raises(KeyboardInterrupt):
            run(settings)
    steps: list[int] = []

    def killed(*arguments: object) -> torch.Tensor:
        if len(steps) == 1:
            raise KeyboardInterrupt
        steps.append(1)
        return step(*arguments)

    monkeypatch.setattr(descriptors, "_described", not_called)
    with monkeypatch.context() as patch:
        patch.setattr(train, "step", killed)
        with pytest.raises(KeyboardInterrupt):
            run(settings)
    monkeypatch.setattr(members, "cluster", not_called)
    resumed = run(settings)
    ours, theirs = (one.folder / "model.safetensors" for one in (resumed, whole))
    assert ours.read_bytes() == theirs.read_bytes()


def test_without_labels_the_number_is_estimated_only_by_a_consensus(
    overrides: list[str], photographs: Path
) -> None:
    plain = ["dataset=folder", f"dataset.path={photographs / 'photos'}", "detector=files"]
    given = [*plain, f"detector.path={photographs / 'maps'}", f"output_root={photographs / 'o'}"]
    with pytest.raises(InputError, match="experiment=discover"):
        run(given)
    with pytest.raises(InputError, match="too few to estimate"):
        run([*given, "backbone=embedded", "backbone.image_size=32", *CONSENSUS])
    with pytest.raises(InputError, match="experiment=discover"):
        composed([*overrides, "novel_classes=estimate"])


def test_distillation_is_least_where_the_prediction_is_the_consensus() -> None:
    shares = torch.tensor([[0.7, 0.3], [0.0, 1.0]])
    same = (shares + 1e-9).log() * 0.1
    entropy = -(shares * (shares + 1e-9).log()).sum(-1).mean()
    assert losses.distillation(same, shares) == pytest.approx(float(entropy), abs=1e-5)
    assert losses.distillation(same.flip(-1), shares) > entropy + 1
