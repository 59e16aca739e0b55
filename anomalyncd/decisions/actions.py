"""What a person can decide about a run's regions, and how a decision is written as a line of text.

A region is named by its row in regions.csv together with the id of its photograph, so that a file
of decisions cannot be read with another run by mistake. A class is named by an id that never
changes: "0", "1" … for the run's own classes, other text for those that a person has made.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from anomalyncd.errors import InputError
from anomalyncd.storage import foreign
from anomalyncd.types import UNKNOWN

VERSION = 1
UNKNOWN_ID = str(UNKNOWN)
FALSE_ALARM, NOT_A_DEFECT = "false_alarm", "not_a_defect"
_CARRIED = "carried-"
REASONS = {FALSE_ALARM: "false alarm", NOT_A_DEFECT: "not a defect"}


@dataclass(frozen=True)
class Name:
    """The class is called this."""

    class_id: str
    name: str


@dataclass(frozen=True)
class Merge:
    """All regions of the classes belong to one of them."""

    class_ids: tuple[str, ...]
    into: str


@dataclass(frozen=True)
class _OfRegions:
    regions: tuple[int, ...]  # rows in regions.csv
    images: tuple[str, ...]  # the id of the photograph of each

    def __post_init__(self) -> None:
        if len(self.regions) != len(self.images):
            raise InputError(f"{len(self.regions)} regions with {len(self.images)} images")


@dataclass(frozen=True)
class Split(_OfRegions):
    """Regions leave their class for new classes; those that are not named stay in it."""

    class_id: str
    parts: tuple[int, ...]  # of each region: it belongs to the class `part_id(decision, part)`

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.regions) != len(self.parts):
            raise InputError(f"{len(self.regions)} regions with {len(self.parts)} parts")


@dataclass(frozen=True)
class Move(_OfRegions):
    """The regions belong to this class, which may be new."""

    class_id: str
    name: str = ""  # what the class is called from now on; empty: as before
    drawn: bool = False  # answers a question about a region that was drawn at random


@dataclass(frozen=True)
class Reject(_OfRegions):
    """The regions are no defects."""

    reason: str  # one of REASONS
    drawn: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.reason not in REASONS:
            raise InputError(f"reason {self.reason[:60]!r}; expected {' or '.join(REASONS)}")


@dataclass(frozen=True)
class Confirm(_OfRegions):
    """The regions are in the right class, which is this one."""

    class_id: str
    drawn: bool = False


@dataclass(frozen=True)
class Deny(_OfRegions):
    """The regions do not belong to this class; to which, is not said."""

    class_id: str
    drawn: bool = False


@dataclass(frozen=True)
class Apart:
    """The classes are different kinds."""

    class_ids: tuple[str, ...]


@dataclass(frozen=True)
class Undo:
    """An earlier decision, which may be an undo itself, does not count."""

    decision: str


Action = Name | Merge | Split | Move | Reject | Confirm | Deny | Apart | Undo
ACTIONS: dict[str, type] = {
    kind.__name__.lower(): kind
    for kind in (Name, Merge, Split, Move, Reject, Confirm, Deny, Apart, Undo)
}


@dataclass(frozen=True)
class Decision:
    id: str
    time: str  # ISO 8601, UTC
    action: Action

    @property
    def is_carried(self) -> bool:
        """Whether a learned run has it from the run that it was learned from."""
        return self.id.startswith(_CARRIED)


def decided_now(action: Action, *, carried: bool = False) -> Decision:
    """A decision with a new id."""
    name = (_CARRIED if carried else "") + secrets.token_hex(6)
    return Decision(name, datetime.now(UTC).isoformat(timespec="seconds"), action)


def without_regions(action: Action) -> Action:
    """What an action says of whole classes."""
    if isinstance(action, Split):
        return replace(action, regions=(), images=(), parts=())
    if isinstance(action, Move | Reject | Confirm | Deny):
        return replace(action, regions=(), images=())
    return action


def new_class_id() -> str:
    """The id of a class that a person makes; two windows never make the same."""
    return f"new-{secrets.token_hex(6)}"


def part_id(decision: str, part: int) -> str:
    """The id of a class that a split makes."""
    return f"{decision}.{part}"


def to_line(decision: Decision) -> str:
    """One line of ASCII, with its line end."""
    kind = type(decision.action).__name__.lower()
    head = {"version": VERSION, "id": decision.id, "time": decision.time, "what": kind}
    return json.dumps(head | asdict(decision.action), separators=(",", ":")) + "\n"


def from_line(text: str, where: str) -> Decision:
    """The decision that a line holds.

    Args:
        text: one line.
        where: file and line, for messages.

    Raises:
        InputError: it is damaged, or a newer version has written it.
    """
    data = foreign.parse_json(text, where)
    if not isinstance(data, dict) or not isinstance(data.get("version"), int):
        raise InputError(f"{where}: no decision; expected an object with version, id, time, what")
    newer = "written by a newer version; update anomalyncd to review this run"
    if data["version"] > VERSION:
        raise InputError(f"{where}: version {data['version']} of decisions, {newer}")
    kind = data.get("what")
    if not isinstance(kind, str) or kind not in ACTIONS:
        raise InputError(f"{where}: this version does not know {str(kind)[:60]!r}, {newer}")
    name, time = data.get("id"), data.get("time")
    if not isinstance(name, str) or not name or not isinstance(time, str):
        raise InputError(f"{where}: a decision without id or time")
    fields: dict[str, Any] = {
        key: value for key, value in data.items() if key not in ("version", "id", "time", "what")
    }
    return Decision(name, time, foreign.build(ACTIONS[kind], fields, where))
