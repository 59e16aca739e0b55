"""When something new is called unlike what a run has seen, and what its images become."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from anomalyncd.config import FusionConfig
from anomalyncd.inference.unknown import (
    MOST,
    SCOPE_MARGIN,
    Familiar,
    Seen,
    evenly,
    familiar,
    judge,
)
from anomalyncd.types import OUT_OF_SCOPE, UNKNOWN, Regions

FUSION = FusionConfig(temperature=10)


def around(direction: int, n: int, seed: int) -> NDArray[np.float32]:
    """n features near one of ten axes."""
    found = np.random.default_rng(seed).normal(0, 0.1, (n, 10))
    found[:, direction] += 1
    return found.astype(np.float32)


def seen(n: int = 60) -> Seen:
    """Two kinds, each in images of its own."""
    return Seen(np.concatenate([around(0, n, 1), around(1, n, 2)]), np.arange(2 * n))


def test_a_new_kind_is_above_the_limit_and_new_ones_of_known_kinds_are_below() -> None:
    found = Familiar(seen(), 0.05)
    assert (found.scores(around(5, 20, 3)) > 1).all()
    known = np.concatenate([found.scores(around(k, 200, 4 + k)) for k in (0, 1)])
    assert 0.01 < (known > 1).mean() < 0.12


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3])
def test_the_share_of_known_ones_that_are_lost_is_the_one_that_was_set(share: float) -> None:
    found = Familiar(seen(300), share)
    new = np.concatenate([found.scores(around(k, 500, 7 + k)) for k in (0, 1)])
    assert (new > 1).mean() == pytest.approx(share, abs=0.05)


def test_a_runs_own_regions_stay_known() -> None:
    """As new images they are nearest to themselves, so fewer are lost than of others."""
    own = seen(100)
    assert (Familiar(own, 0.05).scores(own.features) > 1).mean() < 0.03


def test_an_image_is_out_of_scope_only_far_beyond_the_runs_own() -> None:
    known = seen(300)
    regions, images = familiar((known, known), 0.05)
    assert images.limit == pytest.approx(SCOPE_MARGIN * regions.limit)
    assert (images.scores(known.features) > 1).mean() == 0


def test_own_regions_are_measured_against_those_of_other_images_only() -> None:
    """Two regions of a photograph are alike, so that its others say little about a new one."""
    features = np.repeat(np.random.default_rng(0).normal(size=(40, 10)), 4, axis=0)
    twins = Familiar(Seen(features.astype(np.float32), np.arange(160)), 0.05)
    grouped = Familiar(Seen(features.astype(np.float32), np.arange(160) // 4), 0.05)
    assert twins.limit < 1e-3 < 0.3 < grouped.limit


def test_a_product_with_one_kind_of_defect_has_a_limit_too() -> None:
    one = Familiar(Seen(around(0, 60, 1), np.arange(60)), 0.05)
    assert one.scores(around(1, 20, 2)).min() > 2
    assert (one.scores(around(0, 200, 3)) > 1).mean() < 0.12


def test_a_score_depends_on_no_other_image() -> None:
    found, new = Familiar(seen(), 0.05), around(0, 9, 11)
    alone = np.concatenate([found.scores(new[i : i + 1]) for i in range(9)])
    np.testing.assert_allclose(found.scores(new), alone, rtol=1e-9)
    np.testing.assert_allclose(found.scores(new[::-1])[::-1], alone, rtol=1e-9)


@pytest.mark.parametrize("n", [0, 4])
def test_a_run_that_has_seen_too_little_calls_nothing_unknown(n: int) -> None:
    few = Seen(around(0, n, 1), np.arange(n))
    assert Familiar(few, 0.05).scores(around(5, 3, 2)).tolist() == [0, 0, 0]


def test_what_is_kept_comes_from_everywhere() -> None:
    assert evenly(np.arange(7)).tolist() == list(range(7))
    kept = evenly(np.arange(10 * MOST))
    assert len(kept) == MOST
    assert kept.min() == 0
    assert kept.max() >= 10 * MOST - 10


def regions(areas: list[int], image_index: list[int]) -> Regions:
    n = len(areas)
    return Regions(
        images=np.zeros((n, 1, 1, 3), np.uint8),
        masks=np.zeros((n, 1, 1), np.uint8),
        image_index=np.array(image_index),
        boxes=np.zeros((n, 4), np.int64),
        areas=np.array(areas),
        scores=np.zeros(n),
        image_sizes=np.full((max(image_index) + 1, 2), 64),
    )


def test_unknown_regions_vote_with_their_weight() -> None:
    """A small one among known defects does not make its image unknown, a large one does."""
    found = judge(
        np.array([[0.9, 0.1], [0.2, 0.8], [0.9, 0.1], [0.2, 0.8]]),
        regions([900, 16, 16, 900], [0, 0, 1, 1]),
        FUSION,
        np.array([0.5, 2.0, 0.5, 2.0]),
        np.array([0.5, 0.5]),
        verdicts=True,
    )
    assert found.region_class.tolist() == [0, UNKNOWN, 0, UNKNOWN]
    assert found.region_nearest.tolist() == [0, 1, 0, 1]
    assert found.image_class.tolist() == [0, UNKNOWN]
    assert found.image_nearest.tolist() == [0, 1]
    assert found.image_unknown.tolist() == [2, 2]
    share = 1 / (1 + np.exp(-2.6))  # of the larger: √900 / 10 − √16 / 10 = 2.6
    assert found.image_confidence == pytest.approx([0.9 * share, share])
    assert found.region_confidence.tolist() == [0.9, 1, 0.9, 1]


def test_all_of_an_image_that_is_out_of_scope_is_out_of_scope() -> None:
    found = judge(
        np.array([[0.9, 0.1], [0.2, 0.8]]),
        regions([900, 900], [0, 1]),
        FUSION,
        np.array([0.5, 0.5]),
        np.array([0.9, 1.1]),
        verdicts=True,
    )
    assert found.image_class.tolist() == [0, OUT_OF_SCOPE]
    assert found.region_class.tolist() == [0, OUT_OF_SCOPE]
    assert found.image_confidence.tolist() == [0.9, 1]
    assert found.image_nearest.tolist() == [0, 1]


def test_a_region_without_a_main_element_is_never_unknown() -> None:
    """Nothing was found in its image, so there is nothing that could be unlike."""
    nothing = regions([0], [0])
    found = judge(
        np.array([[0.9, 0.1]]), nothing, FUSION, np.array([5.0]), np.zeros(1), verdicts=True
    )
    assert found.image_class.tolist() == [0]
    assert found.region_unknown.tolist() == [0]


def test_without_verdicts_there_are_only_scores() -> None:
    found = judge(
        np.array([[0.9, 0.1]]),
        regions([900], [0]),
        FUSION,
        np.array([5.0]),
        np.array([7.0]),
        verdicts=False,
    )
    assert (found.image_class.tolist(), found.region_class.tolist()) == ([0], [0])
    assert (found.image_unknown.tolist(), found.image_scope.tolist()) == ([5], [7])
