"""The measurement of unknown kinds: what is known and what is new when one kind is left out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from anomalyncd.types import UNLABELLED, Labels
from scripts.measure_unknown import Described, halved, measure, summary


def looks(kinds: list[int], seed: int) -> NDArray[np.float32]:
    """Each kind in a direction of its own."""
    noise = np.random.default_rng(seed).normal(0, 0.05, (len(kinds), 8))
    return (np.eye(8)[kinds] + noise).astype(np.float32)


def test_a_kind_that_is_left_out_is_told_from_new_regions_of_known_kinds() -> None:
    targets = [0] * 40 + [1] * 40 + [2] * 40 + [UNLABELLED] * 5
    data = Described(
        labels=Labels(("good", "dent", "hole"), np.array(targets), normal=0),
        regions=looks(targets[40:], 0),
        image_index=np.arange(40, 125),
        targets=np.array(targets[40:]),
        images=looks([3] * 125, 1),
        others=looks([6] * 9, 2),
    )
    found = dict(measure(data, seed=1, share=0.1))
    assert list(found) == ["dent", "hole"]
    for row in found.values():
        assert row["auroc"] == row["found"] == row["others flagged"] == 1
        assert row["lost"] < 0.4
        assert row["own flagged"] < 0.3


def test_each_kind_is_halved_and_in_another_way_with_another_seed() -> None:
    targets = np.array([0] * 40 + [UNLABELLED] * 5 + [1] * 41)
    labels = Labels(("good", "dent"), targets, normal=0)
    first = halved(labels, seed=1)
    assert first[targets == 0].sum() == 20 and first[targets == 1].sum() == 20
    assert not first[targets == UNLABELLED].any()
    assert np.array_equal(halved(labels, seed=1), first)
    assert not np.array_equal(halved(labels, seed=2), first)


def test_figures_are_averaged() -> None:
    rows = [{"auroc": 0.5, "lost": 0.0}, {"auroc": 0.9, "lost": 0.1}]
    assert summary(rows) == "auroc 0.700, lost 0.050"
