"""What a run's regions are, after a person's decisions: a pure function of both.

No decision can fail: one about a class that has been merged applies to what it became, and one
about a class that nothing has made yet makes it. So two windows, or two people whose files are
joined, may decide without seeing each other, and the later line counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from anomalyncd.decisions.actions import (
    REASONS,
    UNKNOWN_ID,
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
    part_id,
)
from anomalyncd.errors import InputError
from anomalyncd.types import VERDICTS

_NUMBERED = re.compile(r"(?:new )?class \d+(?: \(\d+\))?")  # what a run calls its classes
_VERDICTS = {str(verdict): word for verdict, word in VERDICTS.items()}
_FIXED = _VERDICTS | REASONS  # not to be named


@dataclass(frozen=True)
class State:
    """Classes in the order in which they appeared; n regions."""

    class_ids: tuple[str, ...]
    names: Mapping[str, str]  # of those with a name
    assigned: NDArray[np.int64]  # (n,) index into class_ids
    decided: NDArray[np.bool_]  # (n,) a person has said which class it is
    denied: frozenset[tuple[int, str]]  # (region, class): the region does not belong to it
    apart: frozenset[frozenset[str]]  # classes that are different kinds
    merged: Mapping[str, str]  # what a class became
    drawn_right: int = 0  # regions drawn at random whose class was right …
    drawn_wrong: int = 0  # … and was not

    def name_of(self, class_id: str) -> str:
        """What a reader calls the class."""
        if class_id in _FIXED:
            return _FIXED[class_id]
        return self.names.get(class_id) or f"new class {self.class_ids.index(class_id)}"

    def current(self, class_id: str) -> str:
        """What a class has become by merges."""
        while class_id in self.merged:
            class_id = self.merged[class_id]
        return class_id

    def is_fixed(self, class_id: str) -> bool:
        """Whether it is no kind of defects: unknown, a false alarm, or not a defect."""
        return class_id in _FIXED

    def is_unnamed(self, class_id: str) -> bool:
        """Whether it is a kind that nobody has given a name to."""
        return _NUMBERED.fullmatch(self.name_of(class_id)) is not None

    def members(self, class_id: str) -> NDArray[np.int64]:
        """The rows of a class's regions; none if there is no such class."""
        if class_id not in self.class_ids:
            return np.zeros(0, np.int64)
        return np.flatnonzero(self.assigned == self.class_ids.index(class_id))

    def class_of(self, region: int) -> str:
        return self.class_ids[int(self.assigned[region])]

    def sizes(self) -> dict[str, int]:
        """Regions of each class that has any."""
        counts = np.bincount(self.assigned, minlength=len(self.class_ids)).tolist()
        return {name: n for name, n in zip(self.class_ids, counts, strict=True) if n}

    def named(self, name: str) -> str | None:
        """The class that has this name: one with regions, or one whose name is fixed."""
        known = (*self.sizes(), *_FIXED)
        return next((one for one in known if self.name_of(one) == name), None)


def initial(classes: NDArray[np.int64], names: Sequence[str]) -> State:
    """A run's own result.

    Args:
        classes: (n,) ids.
        names: (n,) of the class of each region.
    """
    ids, index = np.unique(classes, return_inverse=True)
    named = {str(number): name for number, name in zip(classes.tolist(), names, strict=True)}
    return State(
        class_ids=tuple(map(str, ids.tolist())),
        names=MappingProxyType(named),
        assigned=index.astype(np.int64).reshape(-1),
        decided=np.zeros(len(classes), np.bool_),
        denied=frozenset(),
        apart=frozenset(),
        merged=MappingProxyType({}),
    )


def present(start: State, decisions: Sequence[Decision]) -> State:
    """The state after all decisions, in their order."""
    state = start
    for decision in active(decisions):
        state = applied(state, decision)
    return state


def active(decisions: Sequence[Decision]) -> list[Decision]:
    """The decisions that no undo cancels; undos themselves are left out."""
    cancelled: set[str] = set()
    found = []
    for decision in reversed(decisions):  # an undo may itself be undone by a later one
        if decision.id in cancelled:
            continue
        if isinstance(decision.action, Undo):
            cancelled.add(decision.action.decision)
        else:
            found.append(decision)
    return found[::-1]


def check(decisions: Iterable[Decision], ids: Sequence[str], where: str) -> None:
    """Refuse decisions about other regions than those of this run.

    Args:
        decisions: to be checked.
        ids: (n,) of the photograph of each region.
        where: the file, for the message.

    Raises:
        InputError: a region does not exist, or belongs to another photograph.
    """
    for decision in decisions:
        action = decision.action
        if not isinstance(action, Split | Move | Reject | Confirm | Deny):
            continue
        for region, image in zip(action.regions, action.images, strict=True):
            if not 0 <= region < len(ids) or ids[region] != image:
                raise InputError(
                    f"{where}: decision {decision.id[:40]} is about region {region} of image "
                    f"{image[:60]!r}, which this run does not have; "
                    "the file belongs to another run"
                )


def applied(state: State, decision: Decision) -> State:
    """The state after one more decision, which is not an undo."""
    action = decision.action
    match action:
        case Merge(into=target) | Move(class_id=target) | Confirm(class_id=target) if (
            target in _VERDICTS
        ):
            return state  # nobody can know that a region is unknown
        case Name():
            class_id = state.current(action.class_id)
            return replace(state, names=_with(state.names, class_id, action.name))
        case Merge():
            return _merged(state, action)
        case Apart():
            pair = frozenset(state.current(one) for one in action.class_ids)
            return replace(state, apart=state.apart | {pair})
        case Split():
            for part in sorted(set(action.parts)):
                chosen = np.array(action.regions)[np.equal(action.parts, part)]
                state = _moved(state, chosen, part_id(decision.id, part))
            return state
        case Move():
            rows = np.array(action.regions, np.int64)
            state = _moved(_counted(state, action), rows, action.class_id, decided=True)
            target = state.current(action.class_id)
            if action.name and (target == action.class_id or target not in state.names):
                state = replace(state, names=_with(state.names, target, action.name))
            return state
        case Reject():
            rows = np.array(action.regions, np.int64)
            return _moved(_counted(state, action), rows, action.reason, decided=True)
        case Confirm():
            rows = np.array(action.regions, np.int64)
            return _moved(_counted(state, action), rows, action.class_id, decided=True)
        case Deny():
            return _denied(_counted(state, action), action)
    raise TypeError(f"{action} has no effect of its own")


def _merged(state: State, action: Merge) -> State:
    into = state.current(action.into)
    merged = dict(state.merged)
    for one in action.class_ids:
        source = state.current(one)
        if source != into and source not in _FIXED:
            # What a person said of a region is kept: only its class has become another.
            state = _moved(state, state.members(source), into)
            merged[source] = into
    return replace(state, merged=MappingProxyType(merged))


def _denied(state: State, action: Deny) -> State:
    class_id = state.current(action.class_id)
    rows = np.array(action.regions, np.int64)
    still = rows[state.assigned[rows] == _position(state, class_id)]
    state = replace(
        state, denied=state.denied | {(int(region), class_id) for region in action.regions}
    )
    return _moved(state, still, UNKNOWN_ID, decided=False)


def _moved(
    state: State, rows: NDArray[np.int64], class_id: str, decided: bool | None = None
) -> State:
    """The rows in this class, which is made if needed; `decided` None: as it was."""
    class_id = state.current(class_id)
    ids = state.class_ids if class_id in state.class_ids else (*state.class_ids, class_id)
    assigned = state.assigned.copy()
    assigned[rows] = ids.index(class_id)
    flags = state.decided
    if decided is not None:
        flags = flags.copy()
        flags[rows] = decided
    return replace(state, class_ids=ids, assigned=assigned, decided=flags)


def _counted(state: State, action: Move | Reject | Confirm | Deny) -> State:
    """Count the answer, if the question was about a region drawn at random."""
    if not action.drawn:
        return state
    if isinstance(action, Confirm):
        return replace(state, drawn_right=state.drawn_right + len(action.regions))
    return replace(state, drawn_wrong=state.drawn_wrong + len(action.regions))


def _position(state: State, class_id: str) -> int:
    return state.class_ids.index(class_id) if class_id in state.class_ids else -1


def _with(names: Mapping[str, str], class_id: str, name: str) -> Mapping[str, str]:
    return MappingProxyType({**names, class_id: name})
