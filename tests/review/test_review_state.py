"""The state of a review follows from the run and the decisions alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomalyncd.decisions.actions import (
    FALSE_ALARM,
    NOT_A_DEFECT,
    UNKNOWN_ID,
    Action,
    Apart,
    Confirm,
    Decision,
    Deny,
    Merge,
    Move,
    Name,
    Reject,
    Split,
    Undo,
    from_line,
    to_line,
)
from anomalyncd.decisions.state import State, check, initial, present
from anomalyncd.errors import InputError

N = 6
IDS = tuple(f"photo {row // 2}" for row in range(N))
START = initial(np.array([0, 0, 1, 1, 2, 2]), [f"class {k}" for k in (0, 0, 1, 1, 2, 2)])

rows = st.lists(st.integers(0, N - 1), min_size=1, unique=True).map(sorted)
class_ids = st.sampled_from(["0", "1", "2", "new-a", "new-b"])


def of(regions: list[int]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    return tuple(regions), tuple(IDS[row] for row in regions)


actions: st.SearchStrategy[Action] = st.one_of(
    st.builds(Name, class_ids, st.text(max_size=5)),
    st.builds(lambda a, b: Merge((a, b), b), class_ids, class_ids),
    st.builds(lambda a, b: Apart((a, b)), class_ids, class_ids),
    st.builds(lambda r, c: Split(*of(r), c, tuple(1 + x % 2 for x in r)), rows, class_ids),
    st.builds(lambda r, c, n: Move(*of(r), c, n), rows, class_ids, st.text(max_size=3)),
    st.builds(lambda r, c: Reject(*of(r), c), rows, st.sampled_from([FALSE_ALARM, NOT_A_DEFECT])),
    st.builds(lambda r, c, d: Confirm(*of(r), c, d), rows, class_ids, st.booleans()),
    st.builds(lambda r, c: Deny(*of(r), c), rows, class_ids),
)
histories = st.lists(actions, max_size=8).map(
    lambda made: [Decision(f"d{i}", "2026-01-01T00:00:00+00:00", a) for i, a in enumerate(made)]
)


def decisions(*made: Action) -> list[Decision]:
    return [Decision(f"d{i}", "now", action) for i, action in enumerate(made)]


def same(one: State, other: State) -> bool:
    arrays = zip((one.assigned, one.decided), (other.assigned, other.decided), strict=True)
    rest = ["class_ids", "names", "denied", "apart", "merged", "drawn_right", "drawn_wrong"]
    return all(np.array_equal(a, b) for a, b in arrays) and all(
        getattr(one, name) == getattr(other, name) for name in rest
    )


@given(histories)
def test_every_line_reads_back_as_it_was(made: list[Decision]) -> None:
    for decision in made:
        line = to_line(decision)
        assert line.isascii() and line.count("\n") == 1 and line.endswith("\n")
        assert from_line(line, "") == decision


@given(histories, st.data())
def test_an_undo_restores_exactly_what_was_without_the_decision(
    made: list[Decision], data: st.DataObject
) -> None:
    if not made:
        return
    undone = data.draw(st.sampled_from(made))
    without = [decision for decision in made if decision.id != undone.id]
    undo = Decision("u1", "now", Undo(undone.id))
    assert same(present(START, [*made, undo]), present(START, without))
    redo = Decision("u2", "now", Undo("u1"))
    assert same(present(START, [*made, undo, redo]), present(START, made))


@given(histories)
def test_no_region_is_ever_lost_and_the_start_does_not_change(made: list[Decision]) -> None:
    before = START.assigned.copy()
    state = present(START, made)
    assert sum(state.sizes().values()) == N
    assert state.assigned.max() < len(state.class_ids)
    assert all(state.name_of(class_id) for class_id in state.sizes())
    np.testing.assert_array_equal(START.assigned, before)


def test_of_two_windows_the_later_line_counts_and_a_merged_class_is_followed() -> None:
    merged = Merge(("0", "1"), "1")
    late = Move(*of([4]), "0")  # by a window that has not seen the merge
    state = present(START, decisions(merged, late))
    assert state.class_of(4) == "1" and "0" not in state.sizes()
    state = present(START, decisions(Move(*of([0]), "1"), Move(*of([0]), "2")))
    assert state.class_of(0) == "2"


def test_what_each_decision_does() -> None:
    state = present(
        START,
        decisions(
            Name("0", "scratch"),
            Split(*of([1]), "0", (1,)),
            Reject(*of([2]), FALSE_ALARM),
            Deny(*of([4]), "2"),
            Move(*of([5]), "new-x", "dent"),
            Confirm(*of([3]), "1"),
        ),
    )
    assert [state.class_of(row) for row in range(N)] == [
        *("0", "d1.1", FALSE_ALARM, "1", UNKNOWN_ID, "new-x")
    ]
    assert state.name_of("0") == "scratch" and state.name_of("new-x") == "dent"
    assert state.name_of(UNKNOWN_ID) == "unknown" and state.name_of(FALSE_ALARM) == "false alarm"
    assert state.decided.tolist() == [False, False, True, True, False, True]
    assert (4, "2") in state.denied


@pytest.mark.parametrize(
    "line",
    [Confirm(*of([0]), "-1", True), Move(*of([0]), "-1", drawn=True), Merge(("0", "-1"), "-1")],
)
def test_a_line_that_decides_for_a_verdict_does_not_count(line: Action) -> None:
    """A verdict is what nobody knows; earlier versions have written such lines."""
    before = present(START, decisions(Confirm(*of([0]), "0")))
    assert same(present(START, decisions(Confirm(*of([0]), "0"), line)), before)


def test_a_merge_keeps_what_a_person_said_of_each_region() -> None:
    state = present(START, decisions(Confirm(*of([0]), "0"), Merge(("0", "1"), "1")))
    assert state.decided.tolist() == [True] + 5 * [False]
    assert state.sizes() == {"1": 4, "2": 2}


def test_a_denied_region_that_has_moved_meanwhile_stays_where_it_is() -> None:
    state = present(START, decisions(Move(*of([0]), "2"), Deny(*of([0]), "0")))
    assert state.class_of(0) == "2"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"version":2,"id":"a","time":"t","what":"name"}', "version 2.*newer version"),
        ('{"version":1,"id":"a","time":"t","what":"fold"}', "'fold'.*newer version"),
        (
            '{"version":1,"id":"a","time":"t","what":"name","class_id":"0","name":"n","by":"x"}',
            "by: this version does not know it",
        ),
        ('{"version":1,"id":"a","time":"t","what":"name","class_id":"0"}', "name is missing"),
        ('{"version":1,"what":"name","class_id":"0","name":"n"}', "without id or time"),
        ('{"version":1,"id":"a","ti', "not JSON"),
        ("[]", "no decision"),
        (
            '{"version":1,"id":"a","time":"t","what":"move","regions":[1],"images":[],'
            '"class_id":"0"}',
            "1 regions with 0 images",
        ),
        (
            '{"version":1,"id":"a","time":"t","what":"reject","regions":[],"images":[],'
            '"reason":"ugly"}',
            "'ugly'; expected false_alarm or not_a_defect",
        ),
    ],
)
def test_a_line_that_cannot_be_used_is_refused(line: str, message: str) -> None:
    with pytest.raises(InputError, match=f"line 3.*{message}"):
        from_line(line, "line 3")


@pytest.mark.parametrize(("row", "image"), [(0, "photo 1"), (N, "photo 2"), (-1, "photo 2")])
def test_decisions_of_another_run_are_refused(row: int, image: str) -> None:
    made = decisions(Move((row,), (image,), "0"))
    with pytest.raises(InputError, match="belongs to another run"):
        check(made, IDS, "decisions.jsonl")
