"""Which question comes next, and what the answers say of the rest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from anomalyncd.decisions.actions import Apart, Merge, Name
from anomalyncd.decisions.propagation import Kinds
from anomalyncd.inference.similarity import nearest
from anomalyncd.review import proposals
from anomalyncd.review.questions import OfPair, OfRegion, ask, quality
from anomalyncd.review.scatter import arranged, places
from anomalyncd.review.session import Review
from tests.helpers.reviewed import confirm, deny, make_run, move


@pytest.fixture
def review(tmp_path: Path) -> Review:
    return Review(make_run(tmp_path))


def next_question(review: Review, asked: int = 0, **more: frozenset[int]) -> OfRegion | OfPair:
    found = question(review, asked, **more)
    assert found is not None
    return found


def question(review: Review, asked: int = 0, **more: frozenset[int]) -> OfRegion | OfPair | None:
    known = review.regions
    kinds = review.kinds(review.state)
    return ask(known.tokens, review.graph, kinds, known.areas, review.state, asked, **more)


def test_the_region_that_tells_most_is_asked_about_first(review: Review) -> None:
    """After an answer about a class, those that look like it are known."""
    first = next_question(review)
    review.decide(confirm(review, [first.region], first.class_id))
    second = next_question(review)
    assert second.region // 4 != first.region // 4  # of another class
    assert next_question(review, skipped=frozenset({second.region})).region != second.region


def test_every_fifth_region_is_drawn_at_random_once_classes_have_names(review: Review) -> None:
    assert not any(next_question(review, asked).drawn for asked in range(5))
    review.decide(*(Name(str(number), f"kind {number}") for number in range(3)))
    drawn = [next_question(review, asked) for asked in range(50)]
    assert [found.drawn for found in drawn] == 10 * [False, False, False, False, True]
    assert len({found.region for found in drawn if found.drawn}) > 4


def test_after_a_no_another_class_is_proposed(review: Review) -> None:
    first = next_question(review)
    review.decide(deny(review, [first.region], first.class_id))
    rest = frozenset(range(12)) - {first.region}
    found = next_question(review, skipped=rest)
    assert found.region == first.region and found.class_id != first.class_id


def test_examples_of_a_class_are_decided_ones_then_those_that_are_surest_of_it(
    review: Review,
) -> None:
    """Region 4 was put into class 0 by the run, and looks like class 1."""
    review.decide(confirm(review, [0], "0"), confirm(review, [5], "1"))
    state = replace(review.state, assigned=np.where(np.arange(12) == 4, 0, review.state.assigned))
    known, rest = review.regions, frozenset(range(12)) - {1}
    shares = np.repeat([[0.6, 0.4, 0], [0, 1, 0], [0, 0, 1]], 4, axis=0)
    kinds = Kinds(("0", "1", "2"), shares, np.ones(3, np.bool_))
    found = ask(known.tokens, review.graph, kinds, known.areas, state, 0, rest)
    assert isinstance(found, OfRegion) and (found.region, found.class_id) == (1, "0")
    assert found.examples[0] == 0 and found.examples[-1] == 4


def test_a_photograph_in_which_nothing_was_found_is_not_asked_about(review: Review) -> None:
    review.regions.areas[:11] = 0
    assert next_question(review).region == 11
    review.decide(confirm(review, [11], "2"))
    assert question(review) is None


def test_classes_that_overlap_are_asked_about_once_no_region_is_unsure(review: Review) -> None:
    review.regions.tokens[4:8] = review.regions.tokens[:4][::-1]
    assert isinstance(next_question(review), OfRegion)
    review.decide(*(confirm(review, [*range(4 * k, 4 * k + 4)], str(k)) for k in range(3)))
    assert next_question(review) == OfPair("0", "1")
    review.decide(Apart(("1", "0")))
    assert question(review) is None


def test_a_class_of_two_regions_is_not_compared_with_another(review: Review) -> None:
    review.regions.tokens[4:8] = review.regions.tokens[:4][::-1]
    review.decide(*(confirm(review, [*range(4 * k, 4 * k + 4)], str(k)) for k in range(3)))
    review.decide(move(review, [4, 5], "2"))
    assert question(review) is None


def test_kinds_are_of_the_state_that_was_given_whatever_is_decided_meanwhile(
    review: Review,
) -> None:
    before = review.state
    review.decide(move(review, [0], "new-x", "dent"))
    assert "new-x" in review.kinds(review.state).class_ids
    assert "new-x" not in review.kinds(before).class_ids


def test_nothing_is_asked_once_all_is_decided(review: Review) -> None:
    review.decide(Merge(("1", "0"), "0"), confirm(review, list(range(12)), "0"))
    assert question(review) is None
    found = quality(review.kinds(review.state), review.regions.areas, review.state)
    assert (found.unsure, found.low, found.high) == (0, 1, 1)


def test_only_regions_drawn_at_random_tell_how_good_the_classes_are(review: Review) -> None:
    areas = review.regions.areas
    review.decide(deny(review, [0], "0"), confirm(review, [1], "0"))
    assert quality(review.kinds(review.state), areas, review.state).low is None
    review.decide(*(confirm(review, [row], "1", drawn=True) for row in (4, 5)))
    review.decide(deny(review, [8], "2", drawn=True))
    found = quality(review.kinds(review.state), areas, review.state)
    assert (found.checked, found.right, found.decided) == (3, 2, 3)
    # 3 of 12 are decided; Clopper and Pearson's interval of 2 in 3 is [0.1354, 0.9830].
    assert found.low == pytest.approx((3 + 9 * 0.13535) / 12, abs=1e-4)
    assert found.high == pytest.approx((3 + 9 * 0.98305) / 12, abs=1e-4)


def test_a_split_follows_what_looks_alike_and_the_largest_part_stays() -> None:
    generator = np.random.default_rng(0)
    centres = np.eye(3, dtype=np.float32)[[0] * 3 + [1] * 6 + [2] * 2]
    tokens = centres + generator.normal(0, 0.02, centres.shape).astype(np.float32)
    assert proposals.split(tokens, 3).tolist() == [1] * 3 + [0] * 6 + [2] * 2
    assert proposals.split(tokens[:1], 4).tolist() == [0]
    many = np.repeat(tokens, 200, axis=0)
    assert proposals.split(many, 3).tolist() == [1] * 600 + [0] * 1200 + [2] * 400


def test_neighbours_come_with_falling_cosine() -> None:
    tokens = np.array([[1, 0], [0.6, 0.8], [0, 1], [-1, 0]], np.float32)
    rows, cosines = nearest(tokens, tokens[0], 3)
    assert rows.tolist() == [0, 1, 2]
    np.testing.assert_allclose(cosines, [1, 0.6, 0], atol=1e-6)


def test_the_map_is_computed_once_and_keeps_kinds_together(tmp_path: Path) -> None:
    tokens = np.repeat(np.eye(3, dtype=np.float32), 8, axis=0)
    tokens += np.random.default_rng(0).normal(0, 0.02, tokens.shape).astype(np.float32)
    made = places(tmp_path, tokens)
    assert made.shape == (24, 2) and made.min() == 0 and made.max() == 1
    np.testing.assert_array_equal(places(tmp_path, np.roll(tokens, 1, axis=0)), made)  # as kept
    distance = np.linalg.norm(made[:, None] - made[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    assert (distance.argmin(axis=1) // 8 == np.arange(24) // 8).mean() > 0.9
    (tmp_path / "review_map.safetensors").write_bytes(b"damaged")
    np.testing.assert_array_equal(places(tmp_path, tokens), made)
    assert arranged(tokens[:2]).shape == (2, 2)
