from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score

from anomalyncd.discovery import consensus as consensuses
from anomalyncd.discovery import members, number_of_kinds, stability
from anomalyncd.discovery.consensus import co_association, consensus, votes
from anomalyncd.discovery.discover import Discovery, discover
from anomalyncd.discovery.number_of_kinds import Candidate
from anomalyncd.errors import InputError
from anomalyncd.storage.cache import Cache
from anomalyncd.types import Regions


def described(
    kinds: int, each: int, apart: float = 3.0, seed: int = 0
) -> tuple[NDArray, NDArray[np.int64]]:
    """Descriptors (n, 4, 4, 24) of regions of some kinds, and their kinds."""
    generator = np.random.default_rng(seed)
    truth = np.repeat(np.arange(kinds), each)
    centres = generator.normal(size=(kinds, 1, 4, 24)) * apart
    noise = generator.normal(size=(len(truth), 4, 4, 24))
    return (centres[truth] + noise).astype(np.float32), truth


def regions_of(n: int, empty: int = 0, scores: NDArray | None = None) -> Regions:
    """`empty` regions without a main element, then others."""
    strong = np.full(n, 0.8)
    strong[:empty] = 0.1
    return Regions(
        images=np.zeros((n, 8, 8, 3), np.uint8),
        masks=np.zeros((n, 8, 8), np.uint8),
        image_index=np.arange(n),
        boxes=np.tile([0, 0, 8, 8], (n, 1)),
        areas=np.where(np.arange(n) < empty, 0, 9),
        scores=strong if scores is None else scores,
        image_sizes=np.tile([8, 8], (n, 1)),
        name="regions-test",
    )


def found(
    tmp_path: Path,
    descriptors: NDArray,
    regions: Regions,
    k: int | None = None,
    number: int = 8,
    seed: int = 0,
) -> Discovery:
    return discover(
        descriptors,
        regions,
        k=k,
        members=number,
        seed=seed,
        cache=Cache(tmp_path),
        made_of=["test"],
    )


@pytest.mark.parametrize("kinds", [3, 5, 7])
def test_the_number_of_kinds_is_found_where_they_are_plain(tmp_path: Path, kinds: int) -> None:
    descriptors, truth = described(kinds, each=14)
    result = found(tmp_path, descriptors, regions_of(len(truth)))
    assert result.k == kinds
    assert adjusted_rand_score(truth, result.classes) > 0.95
    assert not result.is_near_chance
    assert result.sentence == f"{kinds} of {kinds} kinds of defects are stable."


def test_regions_without_a_main_element_are_class_0_and_counted(tmp_path: Path) -> None:
    descriptors, _ = described(4, each=12)
    result = found(tmp_path, descriptors, regions_of(48, empty=12))
    assert result.k == 4
    assert (result.classes[:12] == 0).all()
    assert (result.votes[:12] == np.eye(4)[0]).all()
    assert 0 not in result.classes[12:]
    assert result.has_normal


def test_a_given_number_is_kept_and_counts_the_normal_class(tmp_path: Path) -> None:
    descriptors, _ = described(4, each=12)
    result = found(tmp_path, descriptors, regions_of(48, empty=12), k=6)
    assert result.k == 6
    assert result.votes.shape == (48, 6)
    assert len(result.stability) == 6
    assert [c.k for c in result.candidates] == [6]


def test_one_kind_beside_the_normal_class_is_not_near_chance(tmp_path: Path) -> None:
    descriptors, _ = described(1, each=20)
    result = found(tmp_path, descriptors, regions_of(20, empty=5), k=2)
    assert result.classes.tolist() == [0] * 5 + [1] * 15
    assert not result.is_near_chance


def test_structureless_regions_are_said_to_be_near_chance(tmp_path: Path) -> None:
    descriptors, _ = described(1, each=90)
    result = found(tmp_path, descriptors, regions_of(90), k=5, number=12)
    assert result.is_near_chance
    assert "near chance" in result.sentence


def test_the_same_seed_gives_the_same_classes_and_cached_members_are_reused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    descriptors, truth = described(3, each=10, apart=1.0)
    first = found(tmp_path / "first", descriptors, regions_of(len(truth)))
    again = found(tmp_path / "second", descriptors, regions_of(len(truth)))
    assert (first.classes == again.classes).all()
    assert (first.votes == again.votes).all()
    monkeypatch.setattr(members, "cluster", lambda *_: pytest.fail("clustered again"))
    cached = found(tmp_path / "first", descriptors, regions_of(len(truth)))
    assert (cached.votes == first.votes).all()


def test_members_of_a_killed_run_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    descriptors, truth = described(3, each=10)
    whole = members.cluster
    clustered = []

    def killed(member: members.Member, k: int, seed: int) -> NDArray[np.int64]:
        clustered.append(member.number)
        if member.number == 3:
            raise KeyboardInterrupt
        return whole(member, k, seed)

    monkeypatch.setattr(members, "cluster", killed)
    with pytest.raises(KeyboardInterrupt):
        found(tmp_path, descriptors, regions_of(len(truth)), k=3)
    clustered.clear()
    monkeypatch.setattr(
        members, "cluster", lambda m, k, s: clustered.append(m.number) or whole(m, k, s)
    )
    found(tmp_path, descriptors, regions_of(len(truth)), k=3)
    assert min(clustered) == 3


def test_too_few_regions_are_answered_with_what_to_set(tmp_path: Path) -> None:
    descriptors, _ = described(1, each=4)
    with pytest.raises(InputError, match=r"too few to estimate.*novel_classes=3"):
        found(tmp_path, descriptors, regions_of(4))
    with pytest.raises(InputError, match="novel_classes=5, but only 4 regions"):
        found(tmp_path, descriptors, regions_of(4), k=5)


def test_regions_that_all_members_put_together_stay_together() -> None:
    labels = np.array([[0, 0, 1, 1, 2, 2], [1, 1, 0, 0, 0, 0], [2, 2, 1, 1, 0, 0]])
    assert consensus(labels, 3, seed=0).tolist() == [0, 0, 1, 1, 2, 2]
    assert consensus(labels, 2, seed=0).tolist() == [1, 1, 0, 0, 0, 0]
    assert consensus(labels, 1, seed=0).tolist() == [0] * 6


def test_co_association_is_the_share_of_members() -> None:
    labels = np.array([[0, 0, 1], [0, 1, 1]])
    assert co_association(labels, labels).tolist() == [[1, 0.5, 0], [0.5, 1, 0.5], [0, 0.5, 1]]


def test_beyond_the_cap_other_regions_follow_the_compared_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(consensuses, "MAX_COMPARED", 40)
    generator = np.random.default_rng(0)
    truth = np.repeat(np.arange(4), 50)
    labels = np.stack([generator.permutation(4)[truth] for _ in range(5)])
    labels[:, ::9] = generator.integers(0, 4, labels[:, ::9].shape)
    classes = consensus(labels, 4, seed=0)
    plain = np.arange(200) % 9 > 0
    assert adjusted_rand_score(truth[plain], classes[plain]) == 1


def test_beyond_the_cap_a_member_sorts_regions_that_it_has_not_learned_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(members, "MAX_FITTED", 60)
    descriptors, truth = described(3, each=100)
    for member in members.draw(descriptors, 2, seed=0):
        assert adjusted_rand_score(truth, members.cluster(member, 3, seed=0)) > 0.95


def test_votes_are_shares_of_members_whatever_their_numbering() -> None:
    labels = np.array([[0, 0, 1, 1], [1, 1, 0, 0], [0, 0, 0, 1], [1, 1, 0, 0]])
    shares = votes(labels, np.array([0, 0, 1, 1]), 2)
    assert shares.tolist() == [[1, 0], [1, 0], [0.25, 0.75], [0, 1]]


def test_votes_match_a_members_classes_one_to_one() -> None:
    own = np.array([[0, 0, 0, 1, 1, 1, 1, 1]])
    classes = np.array([0, 0, 1, 0, 0, 0, 0, 1])  # both own classes have most regions of class 0
    shares = votes(own, classes, 2)
    assert shares.argmax(axis=1).tolist() == [1, 1, 1, 0, 0, 0, 0, 0]


def test_members_differ_in_what_they_see_in_few_dimensions() -> None:
    descriptors, _ = described(3, each=20)
    first, second = (members.draw(descriptors, 6, seed=1) for _ in range(2))
    assert all((a.space == b.space).all() for a, b in zip(first, second, strict=True))
    assert not np.allclose(first[0].space, first[1].space)
    assert {member.space.shape for member in first} == {(60, members.DIMENSIONS)}


def test_structureless_members_have_the_spread_and_correlation_of_the_real_ones() -> None:
    descriptors, _ = described(3, each=400)
    real = members.draw(descriptors, 3, seed=0)
    null = members.structureless(real, seed=0)
    joint, drawn = (np.concatenate([m.space for m in each], axis=1) for each in (real, null))
    expected, covariance = (np.cov(x, rowvar=False) for x in (joint, drawn))
    assert np.abs(covariance - expected).max() < 0.15 * expected.max()


def scored(*scores: float, first: int = 2) -> list[Candidate]:
    return [Candidate(first + i, score, score) for i, score in enumerate(scores)]


def test_the_smallest_number_near_the_best_is_chosen() -> None:
    assert number_of_kinds.choose(scored(0.3, 0.2, 0.2, 0.5, 0.51, 0.52, 0.2)).k == 5
    assert number_of_kinds.choose(scored(0.6, 0.2, 0.2, 0.5, 0.2)).k == 2
    assert number_of_kinds.choose(scored(0.42, 0.1, 0.4, 0.4, 0.4)).k == 4
    assert number_of_kinds.choose(scored(-0.1, first=7)).k == 7


def test_agreement_that_structureless_data_show_too_counts_nothing() -> None:
    labels = np.random.default_rng(0).integers(0, 3, (4, 1, 30))
    same = np.repeat(labels[:1], 4, axis=0)
    assert number_of_kinds.score(same, same, [3]) == [Candidate(3, 0.0, 1.0)]
    (plain,) = number_of_kinds.score(same, labels, [3])
    assert plain.agreement == 1
    assert 0.8 < plain.score < 1.2


def test_candidates_need_three_regions_each() -> None:
    assert number_of_kinds.candidates(15) == [2, 3, 4, 5]
    assert number_of_kinds.candidates(1000)[-1] == 20
    assert number_of_kinds.candidates(5) == []


def judged(
    labels: NDArray, classes: NDArray, scores: NDArray | None = None, weak: float | None = None
):
    strong = np.ones(len(classes)) if scores is None else scores
    return stability.of_classes(labels, classes, strong, weak, seed=0)


def test_a_class_that_members_cut_in_two_is_perhaps_two_kinds() -> None:
    classes = np.repeat([0, 1], [20, 10])
    cut, other = np.repeat([0, 1, 2], 10), np.repeat([0, 1, 2], [20, 5, 5])
    first, second = judged(np.stack([cut, cut, cut, other]), classes)
    assert first.perhaps_two and not second.perhaps_two
    assert first.stability == pytest.approx(0.625)
    assert second.stability == pytest.approx(0.875)


def test_classes_that_members_put_together_are_perhaps_the_same() -> None:
    classes = np.repeat([0, 1, 2], 10)
    joined = np.repeat([0, 0, 1], 10)
    found = judged(np.stack([joined, joined, classes]), classes)
    assert [one.perhaps_same_as for one in found] == [1, 0, None]


def test_a_class_of_weak_regions_is_mostly_false_alarms() -> None:
    classes = np.repeat([0, 1], 10)
    scores = np.repeat([0.3, 0.8], 10)
    found = judged(np.stack([classes, classes]), classes, scores, weak=0.5)
    assert [one.mostly_false_alarms for one in found] == [True, False]


def test_weak_is_half_way_from_what_looks_defect_free_to_the_rest() -> None:
    empty = np.array([True, True, False, False, False])
    scores = np.array([0.1, 0.2, 0.5, 0.6, 0.9])
    assert stability.weak_score(scores, empty) == pytest.approx(0.4)
    assert stability.weak_score(scores, ~empty) is None
    assert stability.weak_score(scores, np.zeros(5, bool)) is None
