"""Scores of clusterings, and the true class of a region."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomalyncd.evaluation import metrics
from anomalyncd.types import UNLABELLED, Labels, Regions

pairs = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40)


@given(pairs)
def test_f1_is_the_best_over_all_renamings(samples: list[tuple[int, int]]) -> None:
    targets, predicted = np.array(samples).T
    best = max(np.mean(np.array(names)[predicted] == targets) for names in permutations(range(4)))
    assert metrics.score(targets, predicted).f1 == pytest.approx(best)


@given(pairs, st.permutations(range(4)))
def test_scores_ignore_the_numbering(samples: list[tuple[int, int]], names: list[int]) -> None:
    targets, predicted = np.array(samples).T
    a, b = metrics.score(targets, predicted), metrics.score(targets, np.array(names)[predicted])
    assert (a.nmi, a.ari, a.f1) == pytest.approx((b.nmi, b.ari, b.f1))


def test_perfect_and_useless() -> None:
    perfect = metrics.score([0, 0, 1, 2], [2, 2, 0, 1])
    assert (perfect.nmi, perfect.ari, perfect.f1) == pytest.approx((1, 1, 1))
    useless = metrics.score([0, 0, 1, 1], [0, 1, 0, 1])
    assert useless.nmi == pytest.approx(0, abs=1e-9) and useless.f1 == 0.5


def test_the_information_that_two_clusterings_share_is_normalised_by_the_mean_of_theirs() -> None:
    targets, predicted = [0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 2]
    table = np.array([[3, 1, 0], [0, 1, 1]]) / 6
    rows, columns = table.sum(1), table.sum(0)
    entropies = [-(p * np.log(p)).sum() for p in (rows, columns, table[table > 0])]
    shared = entropies[0] + entropies[1] - entropies[2]
    found = metrics.score(targets, predicted)
    assert found.nmi == pytest.approx(shared / np.mean(entropies[:2]))
    # of 15 pairs 7 are together in the first, 4 in the second, and 3 in both
    expected = 7 * 4 / 15
    assert found.ari == pytest.approx((3 - expected) / ((7 + 4) / 2 - expected))
    assert found.f1 == pytest.approx(4 / 6)


def test_more_found_than_true_classes() -> None:
    assert metrics.match([0, 0, 0, 1], [2, 2, 1, 0]).tolist() == [1, 2, 0]
    assert metrics.match([0, 1], [0, 0], size=3).tolist()[0] in (0, 1)


def test_a_table_counts_every_pair_once() -> None:
    assert metrics.confusion([0, 2, 2], [1, 0, 0]).tolist() == [[0, 1, 0], [0, 0, 0], [2, 0, 0]]
    assert metrics.confusion([1], [0]).shape == (2, 2)
    assert metrics.confusion([0], [0]).shape == (1, 1)
    assert metrics.confusion([0], [0], size=4).shape == (4, 4)


def test_nothing_to_compare_is_an_error() -> None:
    with pytest.raises(ValueError, match="equal numbers"):
        metrics.score([], [])
    with pytest.raises(ValueError, match="equal numbers"):
        metrics.score([0, 1], [0])


@pytest.mark.parametrize(("targets", "predicted"), [([0, -1], [0, 0]), ([0, 1], [0, -1])])
def test_what_has_no_class_is_not_compared(targets: list[int], predicted: list[int]) -> None:
    """UNLABELLED is -1, which would count from the end."""
    for compare in (metrics.score, metrics.match, metrics.confusion):
        with pytest.raises(ValueError, match="a class below 0"):
            compare(targets, predicted)


def test_detection_scores_equal_the_plain_ones() -> None:
    rng = np.random.default_rng(0)
    pairs = [
        (rng.integers(0, 256, (9, 7)).astype(np.uint8), rng.random((9, 7)) < 0.3) for _ in range(5)
    ]
    scores = np.concatenate([scores.ravel() for scores, _ in pairs])
    truth = np.concatenate([truth.ravel() for _, truth in pairs])
    found = metrics.pixel_auroc(iter(pairs))
    above = scores[truth][:, None] > scores[~truth]
    equal = scores[truth][:, None] == scores[~truth]
    assert found == pytest.approx(above.mean() + equal.mean() / 2)
    assert metrics.image_auroc([1, 3, 2, 9], [False, True, False, True]) == 1
    assert metrics.image_auroc([1, 3], [False, False]) is None
    clean = np.zeros((2, 2), np.uint8), np.zeros((2, 2), bool)
    assert metrics.pixel_auroc([clean]) is None


@given(pairs)
def test_normal_recall_is_the_matched_share_of_the_normal_class(
    samples: list[tuple[int, int]],
) -> None:
    targets, predicted = np.array(samples).T
    names = metrics.match(targets, predicted, 4)
    for normal in range(4):
        kept = [names[b] == normal for a, b in samples if a == normal]
        expected = sum(kept) / len(kept) if kept else None
        found = metrics.normal_recall(targets, predicted, names, normal)
        assert found == pytest.approx(expected)


def test_normal_recall_of_a_known_table() -> None:
    targets, predicted = [0, 0, 0, 0, 1, 1], [2, 2, 2, 1, 1, 1]
    matching = metrics.match(targets, predicted)
    assert metrics.normal_recall(targets, predicted, matching, normal=0) == 0.75
    assert metrics.normal_recall(targets, predicted, matching, normal=None) is None


def test_normal_recall_follows_the_matching_it_is_given() -> None:
    targets, predicted = [0, 0, 1, 1], [0, 1, 0, 1]  # a tie: both matchings agree on 2 of 4
    assert metrics.normal_recall(targets, predicted, np.array([0, 1]), normal=0) == 0.5
    assert metrics.normal_recall([0, 0, 0, 1], [0, 0, 1, 1], np.array([1, 0]), normal=0) == 1 / 3


def test_detection_rates_are_shares_of_defect_free_and_of_defective_images() -> None:
    found, defective = [True, False, False, False, True], [False, False, False, True, True]
    assert metrics.detection_rates(found, defective) == pytest.approx((1 / 3, 1 / 2))
    assert metrics.detection_rates([True], [False]) == (1, None)
    assert metrics.detection_rates([True], [True]) == (None, 0)


def regions_of_four_images() -> Regions:
    return Regions(
        images=np.zeros((5, 1, 1, 3), np.uint8),
        masks=np.zeros((5, 1, 1), np.uint8),
        image_index=np.array([0, 0, 1, 2, 3]),
        boxes=np.array([[-2, -2, 4, 4], [5, 5, 9, 9], [0, 0, 9, 9], [0, 0, 9, 9], [0, 0, 2, 2]]),
        areas=np.ones(5, np.int64),
        scores=np.ones(5),
        image_sizes=np.full((4, 2), 10),
    )


@pytest.mark.parametrize(
    ("pixel", "first", "second"),
    [
        ((3, 3), 1, 0),
        ((0, 0), 1, 0),
        ((3, 0), 1, 0),
        ((4, 3), 0, 0),
        ((3, 4), 0, 0),
        ((5, 5), 0, 1),
    ],
)
def test_a_region_beside_the_defect_is_normal(
    pixel: tuple[int, int], first: int, second: int
) -> None:
    labels = Labels(("good", "hole"), np.array([1, 0, UNLABELLED, 1]), normal=0)
    truth = np.zeros((10, 10), bool)
    truth[pixel] = True
    masks = {0: truth, 1: None, 3: None}
    found = metrics.region_targets(labels, regions_of_four_images(), lambda image: masks[image])
    assert found.tolist() == [first, second, 0, UNLABELLED, 1]
    assert labels.targets.tolist() == [1, 0, UNLABELLED, 1], "labels are only read"


def test_without_a_normal_class_a_region_beside_the_defect_is_not_scored() -> None:
    labels = Labels(("dent", "hole"), np.array([1, 0, 0, 1]), normal=None)
    truth = np.zeros((10, 10), bool)
    truth[3, 3] = True
    masks = {0: truth, 1: None, 2: None, 3: np.zeros((10, 10), bool)}
    found = metrics.region_targets(labels, regions_of_four_images(), lambda image: masks[image])
    assert found.tolist() == [1, UNLABELLED, 0, 0, 1]
