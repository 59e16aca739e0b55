"""Which unknown regions become a class, and which regions may change theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from anomalyncd.discovery.discover import Clustered
from anomalyncd.discovery.number_of_kinds import Candidate
from anomalyncd.extension import day, groups, prototypes
from anomalyncd.extension.groups import Group, Unknown, gather
from anomalyncd.storage.cache import Cache
from anomalyncd.types import UNKNOWN

WIDTH = 16
NAMES = ("class 0", "class 1")


@pytest.fixture(autouse=True)
def clustered(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the clusterings say, instead of 32 of them: hardly beyond chance, unless it is set."""
    says: dict[str, Any] = {"score": 0.05}

    def cluster(descriptors: NDArray, numbers: list[int], *_: object) -> Clustered:
        n = len(descriptors)
        classes = says.get("classes", np.arange(n) % 2)
        best = Candidate(int(classes.max()) + 1, says["score"], 0.9)
        labels = np.tile(classes, (4, len(numbers), 1)).astype(np.int16)
        return Clustered(tuple(numbers), labels, (best,), best, classes)

    monkeypatch.setattr(groups, "cluster", cluster)
    return says


def around(direction: int, n: int, spread: float = 0.1, seed: int = 0) -> NDArray[np.float32]:
    """(n, WIDTH) tokens near an axis."""
    noise = np.random.default_rng((seed, direction)).normal(size=(n, WIDTH)) * spread
    return (np.eye(WIDTH)[direction] + noise).astype(np.float32)


KNOWN = np.concatenate([around(0, 12), around(1, 12)])
CLASSES = np.repeat([0, 1], 12)
OLD = torch.eye(WIDTH)[:2].repeat(3, 1, 1)  # (heads, K, WIDTH)


def unknown_of(tokens: NDArray[np.float32], days: int | NDArray = 1) -> Unknown:
    n = len(tokens)
    descriptors = np.repeat(np.repeat(tokens[:, None, None], 4, axis=1), 4, axis=2)
    return Unknown(descriptors, tokens, np.arange(n), np.broadcast_to(days, n).copy())


def gathered(tmp_path: Path, unknown: Unknown) -> list[Group]:
    known_days = np.zeros(len(KNOWN), int)
    return gather(unknown, KNOWN, known_days, seed=0, cache=Cache(tmp_path))


def test_a_new_kind_is_one_group(tmp_path: Path) -> None:
    (group,) = gathered(tmp_path, unknown_of(around(2, 8)))
    assert group.rows.tolist() == list(range(8))


def test_kinds_that_the_clusterings_agree_on_are_groups_of_their_own(
    tmp_path: Path, clustered: dict[str, Any]
) -> None:
    clustered |= {"score": 0.4, "classes": np.repeat([0, 1, 2], [7, 5, 3])}
    tokens = np.concatenate([around(2, 7), around(3, 5), around(4, 3)])
    found = gathered(tmp_path, unknown_of(tokens))
    # three regions are too few
    assert [group.rows.tolist() for group in found] == [[*range(7)], [*range(7, 12)]]
    assert [group.stability for group in found] == [1, 1]


def test_regions_that_are_no_kind_stay_unknown(tmp_path: Path) -> None:
    scattered = np.concatenate([around(k % 2, 1, 0.3, seed=k) for k in range(8)])
    assert gathered(tmp_path, unknown_of(scattered)) == []


def test_a_stray_region_is_left_out_of_a_group(tmp_path: Path) -> None:
    tokens = np.concatenate([around(2, 5), around(0, 1, seed=9)])
    (group,) = gathered(tmp_path, unknown_of(tokens))
    assert group.rows.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("n", [0, 1, 3])
def test_too_few_regions_are_no_group(tmp_path: Path, n: int) -> None:
    assert gathered(tmp_path, unknown_of(around(2, n))) == []


def test_regions_of_two_photographs_are_no_group(tmp_path: Path) -> None:
    unknown = unknown_of(around(2, 6))
    unknown.images[:] = [0, 0, 0, 1, 1, 1]
    assert gathered(tmp_path, unknown) == []


def all_regions(*parts: tuple[NDArray[np.float32], int, int]) -> day.Regions:
    """The known ones, of day 0, then parts: tokens, class, day."""
    tokens = np.concatenate([KNOWN, *(part[0] for part in parts)])
    classes = np.concatenate([CLASSES, *(np.full(len(x), c) for x, c, _ in parts)])
    days = np.concatenate([np.zeros(24, int), *(np.full(len(x), d) for x, _, d in parts)])
    return day.Regions(tokens, classes, days)


def test_a_new_prototype_claims_its_kind_and_no_other() -> None:
    new = prototypes.learn(OLD, KNOWN, CLASSES, [around(2, 5)], 0.1)
    assert new.shape == (3, 1, WIDTH)
    assert new.dtype == OLD.dtype
    for head in range(3):
        assert (prototypes.nearest(OLD[head], new[head], around(2, 20, seed=1)) == 2).all()
        assert prototypes.nearest(OLD[head], new[head], KNOWN).tolist() == CLASSES.tolist()


@given(st.integers(0, 1000), st.integers(1, 3))
def test_no_region_changes_between_old_classes(seed: int, count: int) -> None:
    """Whatever the groups are: ids of old classes stay, and regions only go to new ones."""
    generator = np.random.default_rng(seed)
    late = generator.normal(size=(10, WIDTH)).astype(np.float32)
    parts = [(generator.normal(size=(4, WIDTH)).astype(np.float32), UNKNOWN, 2)] * count
    regions = all_regions((late[:5], 0, 1), (late[5:], 1, 2), *parts)
    rows = [np.arange(34 + 4 * k, 38 + 4 * k) for k in range(count)]
    accepted = day.Accepted(tuple(Group(r, 1.0) for r in rows), None, ())
    claimed = generator.integers(0, 2 + count, len(regions.classes))
    after = day.moves(accepted, regions, claimed, 2)
    changed = after != regions.classes
    assert (after[changed] >= 2).all()
    # Nothing that came before the kind's first region, which is of day 2.
    assert not changed[regions.days < 2].any()
    for number, own in enumerate(rows):
        assert (after[own] == 2 + number).all()


def test_a_region_that_was_not_noticed_joins_its_new_class() -> None:
    known, missed, group = around(0, 3, seed=5), around(2, 3, seed=5), around(2, 5)
    regions = all_regions((known, 0, 1), (missed, 0, 2), (group, UNKNOWN, 2))
    one = Group(np.arange(30, 35), 1.0)
    accepted = day.accept([one], regions, OLD, 0, NAMES, 0.1)
    assert accepted.groups == (one,)
    assert accepted.prototypes is not None
    claimed = prototypes.nearest(OLD[0], accepted.prototypes[0], regions.tokens)
    after = day.moves(accepted, regions, claimed, 2)
    assert after[:27].tolist() == [*CLASSES, 0, 0, 0]
    assert after[27:].tolist() == [2] * 8


def test_a_group_like_an_old_class_is_refused_and_the_other_kept() -> None:
    regions = all_regions((around(0, 5, seed=7), UNKNOWN, 1), (around(2, 6), UNKNOWN, 1))
    like_old, new = Group(np.arange(24, 29), 1.0), Group(np.arange(29, 35), 1.0)
    accepted = day.accept([new, like_old], regions, OLD, 0, NAMES, 0.1)
    assert accepted.groups == (new,)
    (sentence,) = accepted.refused
    assert sentence.startswith("5 unknown regions hold together, but ")


def test_a_kind_is_compared_with_what_came_before_it() -> None:
    """Regions of its own days may be of the kind, unnoticed, so they are no counter-examples."""
    days = np.array([0, 1, 2, 3])
    assert groups.certain(days, 2).tolist() == [True, True, False, False]


def test_old_prototypes_are_not_touched() -> None:
    before: Tensor = OLD.clone()
    prototypes.learn(OLD, KNOWN, CLASSES, [around(2, 5)], 0.1)
    assert torch.equal(OLD, before)
