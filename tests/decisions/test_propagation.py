"""What decisions say of regions that nobody has decided about."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from anomalyncd.decisions import propagation
from anomalyncd.decisions.actions import (
    FALSE_ALARM,
    Action,
    Confirm,
    Deny,
    Merge,
    Move,
    Name,
    Reject,
    decided_now,
)
from anomalyncd.decisions.propagation import graph, kinds, most_telling
from anomalyncd.decisions.state import State, initial, present
from anomalyncd.types import UNKNOWN

GROUPS = 3


def looks(per_group: int = 8, seed: int = 0) -> NDArray[np.float32]:
    """Three groups of regions that look alike."""
    generator = np.random.default_rng(seed)
    centres = np.repeat(generator.normal(size=(GROUPS, 12)), per_group, axis=0)
    return (centres + generator.normal(0, 0.1, centres.shape)).astype(np.float32)


def start(classes: NDArray[np.int64] | None = None) -> State:
    own = np.arange(24) // 8 if classes is None else classes
    return initial(own, [f"class {k}" for k in own.tolist()])


def after(*actions: Action, classes: NDArray[np.int64] | None = None) -> State:
    return present(start(classes), [decided_now(action) for action in actions])


def said(state: State, areas: NDArray[np.int64] | None = None) -> list[str]:
    n = len(state.assigned)
    found = kinds(graph(looks(n // GROUPS)), state, np.ones(n, int) if areas is None else areas)
    return [found.class_ids[k] for k in found.shares.argmax(axis=1)]


def of(row: int) -> tuple[tuple[int, ...], tuple[str, ...]]:
    return (row,), (str(row),)


def test_one_answer_tells_about_all_regions_that_look_alike() -> None:
    """The run has put everything into one class; three answers part it."""
    one_class = np.zeros(24, int)
    moved = [Move(*of(0), "0"), Move(*of(8), "new-a", "dent"), Reject(*of(16), FALSE_ALARM)]
    expected = 8 * ["0"] + 8 * ["new-a"] + 8 * [FALSE_ALARM]
    assert said(after(*moved, classes=one_class)) == expected


def test_without_an_answer_the_run_is_believed() -> None:
    assert said(start()) == 8 * ["0"] + 8 * ["1"] + 8 * ["2"]
    assert said(after(Merge(("2", "0"), "0"))) == 8 * ["0"] + 8 * ["1"] + 8 * ["0"]


def test_a_kind_that_nobody_has_looked_at_stays() -> None:
    """Two answers about others do not dissolve it."""
    found = said(after(Confirm(*of(0), "0"), Confirm(*of(8), "1")))
    assert found == 8 * ["0"] + 8 * ["1"] + 8 * ["2"]


def test_a_kind_that_was_named_stays_even_in_a_small_run() -> None:
    """None of its four regions was decided, and of all others some were."""
    state = present(
        start(np.arange(12) // 4),
        [decided_now(Name("0", "scratch")), *map(decided_now, small_review())],
    )
    assert said(state)[:4] == 4 * ["0"]


def small_review() -> list[Action]:
    dents = [Move(*of(4), "new-a", "dent"), Move(*of(5), "new-a")]
    return [*dents, Reject(*of(6), FALSE_ALARM), Confirm(*of(7), "1")]


def test_a_decided_region_keeps_its_class_whatever_it_looks_like() -> None:
    assert said(after(Confirm(*of(0), "2")))[0] == "2"


def test_a_region_is_not_of_a_class_that_was_denied() -> None:
    found = said(after(Deny(*of(3), "0")))
    assert found[3] in ("1", "2") and found[:3] == 3 * ["0"]


def test_regions_of_the_normal_class_follow_others_unless_nothing_was_found_there() -> None:
    areas = np.ones(24, int)
    areas[:6] = 0
    assert said(start(), areas)[:6] == 6 * ["0"]
    assert "0" not in said(start(), areas)[6:]  # 6 and 7 show something


def test_a_class_of_defects_is_not_the_normal_one() -> None:
    """One empty photograph does not make it so, nor do many if a person has seen a defect in it."""
    areas = np.ones(24, int)
    areas[8] = 0
    assert propagation.normal_class(start(), areas) is None
    assert said(start(), areas) == 8 * ["0"] + 8 * ["1"] + 8 * ["2"]
    areas[8:14] = 0
    assert propagation.normal_class(start(), areas) == "1"
    assert propagation.normal_class(after(Confirm(*of(14), "1")), areas) is None


@given(st.integers(0, 10_000))
def test_shares_are_distributions_whatever_was_decided(seed: int) -> None:
    generator = np.random.default_rng(seed)
    classes = generator.integers(-1, 4, 24)
    actions: list[Action] = []
    for row in generator.permutation(24)[: generator.integers(0, 24)].tolist():
        target = str(generator.integers(0, 5))
        kinds_of = (
            Confirm(*of(row), target),
            Deny(*of(row), target),
            Reject(*of(row), FALSE_ALARM),
        )
        actions.append(kinds_of[generator.integers(3)])
    state = after(*actions, classes=classes)
    areas = generator.integers(0, 2, 24)
    found = kinds(graph(looks()), state, areas)
    sums = found.shares.sum(axis=1)
    assert np.isfinite(found.shares).all() and (found.shares >= 0).all()
    assert (np.isclose(sums, 1) | (sums == 0)).all()
    for row in np.flatnonzero(state.decided & np.isin(state.assigned, range(99))):
        if state.class_of(row) in found.class_ids:
            assert found.class_ids[found.shares[row].argmax()] == state.class_of(row)
    assert str(UNKNOWN) not in found.class_ids


def test_many_regions_follow_the_joined_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(propagation, "MOST", 30)
    found = graph(looks(40))
    assert found.reach.shape == (30, 30)
    np.testing.assert_allclose(found.following.sum(axis=1), 1)
    moved = [Move(*of(1), "0"), Move(*of(41), "new-a", "dent"), Move(*of(81), "new-b", "crack")]
    classes = np.zeros(120, int)
    state = present(start(classes), [decided_now(action) for action in moved])
    shares = kinds(found, state, np.ones(120, int))
    best = [shares.class_ids[k] for k in shares.shares.argmax(axis=1)]
    assert best == 40 * ["0"] + 40 * ["new-a"] + 40 * ["new-b"]


def test_a_region_beside_a_decided_one_tells_less() -> None:
    found = graph(looks())
    sure = np.full(24, 1 / 3)
    open_ = np.ones(24, np.bool_)
    before = most_telling(found, sure, open_)
    open_[0] = False
    then = most_telling(found, sure, open_)
    assert (then[1:8] / before[1:8]).max() < (then[8:] / before[8:]).min()


@pytest.mark.parametrize("n", [0, 1, 2])
def test_few_regions_are_no_problem(n: int) -> None:
    found = graph(np.ones((n, 4), np.float32))
    state = start(np.zeros(n, np.int64))
    assert kinds(found, state, np.ones(n, int)).shares.shape == (n, min(n, 1))
