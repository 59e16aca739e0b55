"""A review: a finished run, the decisions on it, and the state that follows from both."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from anomalyncd.decisions import propagation
from anomalyncd.decisions.actions import Action, Decision, Undo, decided_now
from anomalyncd.decisions.journal import Journal
from anomalyncd.decisions.propagation import Graph, Kinds
from anomalyncd.decisions.state import State, active, applied, check, initial, present
from anomalyncd.errors import InputError
from anomalyncd.inference.similarity import directions
from anomalyncd.results import known_regions
from anomalyncd.results.known_regions import KnownRegions


class Review:
    """Used by several threads at once; each sees a state that does not change under it."""

    def __init__(self, run: Path) -> None:
        """
        Args:
            run: a finished run's folder.

        Raises:
            InputError: its results or its decisions cannot be read.
        """
        self.run = run
        known = known_regions.read(run)
        self.regions: KnownRegions = replace(known, tokens=directions(known.tokens))  # for cosines
        self.start = initial(known.classes, known.class_names)
        self._graph_lock = threading.Lock()
        self._journal = Journal(run)
        self._lock = threading.Lock()
        self._state = self.start
        self._kinds: tuple[State, Kinds] | None = None  # of a state
        self._counted = 0  # decisions that the state contains
        self.refresh()

    @property
    def state(self) -> State:
        return self._state

    @cached_property
    def graph(self) -> Graph:
        """Which regions look alike: seconds for many regions, then kept."""
        known = self.regions
        with self._graph_lock:
            return propagation.graph(known.tokens if known.looks is None else known.looks)

    def kinds(self, state: State) -> Kinds:
        """What kind each region is, as far as the decisions tell that led to a state."""
        kept = self._kinds
        if kept is None or kept[0] is not state:
            kept = state, propagation.kinds(self.graph, state, self.regions.areas)
            self._kinds = kept
        return kept[1]

    @property
    def decisions(self) -> list[Decision]:
        return self._journal.decisions

    @property
    def version(self) -> int:
        """Grows with every decision."""
        return len(self._journal.decisions)

    @property
    def warning(self) -> str:
        """What a person must know of the file of decisions; empty if nothing."""
        return self._journal.warning

    @property
    def path(self) -> Path:
        return self._journal.path

    def refresh(self) -> None:
        """Take in what other processes have decided.

        Raises:
            InputError: their lines cannot be used.
        """
        with self._lock:
            self._journal.refresh()
            self._update()

    def decide(self, *actions: Action) -> list[Decision]:
        """Keep decisions of a person; when this returns, they are on the disk.

        Raises:
            InputError: they cannot be written, or are not about this run.
        """
        if not actions:
            return []
        made = [decided_now(action) for action in actions]
        check(made, self.regions.ids, "this decision")
        with self._lock:
            self._journal.append(made)
            self._update()
        return made

    def undo(self) -> Decision | None:
        """Undo the last decision that counts, except those of the run that this one learned from.

        Returns:
            What was undone; None if there is nothing to undo.
        """
        own = [one for one in active(self.decisions) if not one.is_carried]
        last = own[-1] if own else None
        if last is not None:
            self.decide(Undo(last.id))
        return last

    def addressed(self, rows: Sequence[int]) -> tuple[tuple[int, ...], tuple[str, ...]]:
        """The rows with the id of each one's photograph, as decisions name regions.

        Raises:
            InputError: there is no such region.
        """
        count = len(self.regions.ids)
        if wrong := [row for row in rows if not 0 <= row < count]:
            raise InputError(f"region {wrong[0]}: this run has {count} regions")
        return tuple(rows), tuple(self.regions.ids[row] for row in rows)

    def _update(self) -> None:
        decisions = self._journal.decisions
        new = decisions[self._counted :]
        if not new:
            return
        check(new, self.regions.ids, str(self.path))
        if any(isinstance(decision.action, Undo) for decision in new):
            self._state = present(self.start, decisions)
        else:
            state = self._state
            for decision in new:
                state = applied(state, decision)
            self._state = state
        self._counted = len(decisions)
