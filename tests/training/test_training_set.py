"""The training set: base regions first, wherever their pixels are stored."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from anomalyncd.runtime import devices
from anomalyncd.training import training_set
from anomalyncd.training.training_set import Pixels, Targets, TrainingSet
from tests.helpers.training import CPU, drawn_regions
from tests.helpers.training import training_set as both_kinds


@pytest.mark.parametrize("resident", [True, False])
def test_pixels_are_the_same_wherever_they_are_stored(
    resident: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def has_room(device: torch.device, size: int) -> bool:
        asked.append(size)
        return resident

    monkeypatch.setattr(devices, "has_room", has_room)
    monkeypatch.setattr(training_set, "_REGIONS_AT_ONCE", 5)  # in parts
    data = both_kinds()
    assert data.base is not None
    pixels = Pixels(data, CPU)
    assert (pixels.resident is not None) == resident
    assert asked == [16 * 37 * 37 * 4], "an image of three channels and a mask of each region"
    images, masks = pixels.rows(torch.tensor([0, 6, 7, 7, 15]))
    np.testing.assert_array_equal(
        images, np.concatenate([data.base.images[[0, 6]], data.novel.images[[0, 0, 8]]])
    )
    np.testing.assert_array_equal(
        masks, np.concatenate([data.base.masks[[0, 6]], data.novel.masks[[0, 0, 8]]])
    )


def test_the_fingerprint_changes_with_the_data() -> None:
    novel, base = replace(drawn_regions(3, 0), name="a"), replace(drawn_regions(2, 1), name="b")
    targets = np.array([0, 1])
    kinds = [
        TrainingSet(novel),
        TrainingSet(replace(novel, name="c")),
        TrainingSet(novel, base, targets),
        TrainingSet(novel, replace(base, name="c"), targets),
        TrainingSet(novel, base, targets[::-1].copy()),
    ]
    assert len({tuple(data.fingerprint) for data in kinds}) == len(kinds)
    assert TrainingSet(novel, base, targets.copy()).fingerprint == kinds[2].fingerprint


def test_votes_follow_their_regions_beside_a_base_set() -> None:
    data = both_kinds()
    votes = np.random.default_rng(0).dirichlet(np.ones(3), len(data.novel))
    voted = replace(data, votes=votes)
    batch = Targets(voted, CPU).batch(torch.tensor([0, 2, 7, 9]))
    assert batch.votes is not None
    np.testing.assert_allclose(batch.votes, votes[[0, 2]], rtol=1e-6)
    assert Targets(data, CPU).batch(torch.tensor([0, 7])).votes is None
    other = replace(data, votes=votes[::-1].copy())
    assert len({tuple(d.fingerprint) for d in (data, voted, other)}) == 3


def test_without_a_base_set_the_novel_regions_are_all() -> None:
    novel = drawn_regions(3, 0)
    data = TrainingSet(novel)
    assert (data.n_base, len(data), data.stored_size) == (0, 3, 37)
    batch = Targets(data, CPU).batch(torch.tensor([0, 2]))
    assert batch.n_base == 0 and batch.labels.tolist() == [-1, -1]
    np.testing.assert_allclose(batch.scores, novel.scores[[0, 2]], rtol=1e-6)
