"""What a person sends from the page, as decisions."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from anomalyncd.decisions.actions import (
    REASONS,
    Action,
    Apart,
    Confirm,
    Deny,
    Merge,
    Move,
    Name,
    Reject,
    Split,
    Undo,
    new_class_id,
)
from anomalyncd.decisions.naming import require_short
from anomalyncd.decisions.state import State
from anomalyncd.errors import InputError
from anomalyncd.review import proposals
from anomalyncd.review.page.views import short
from anomalyncd.review.session import Review

_NOTHING_TO_CONFIRM = "only a class of defects can be confirmed; move the region to one first"


def answer(review: Review, form: Mapping[str, str]) -> tuple[Action, str]:
    """The decision that a form asks for, and a sentence that says what it does.

    Args:
        review: that it is about.
        form: `what`, one of the words below, and what this needs.

    Raises:
        InputError: the form is incomplete, or is about something that no longer exists.
    """
    state = review.state
    what = form.get("what", "")
    match what:
        case "name":
            return _named(state, _class(state, form), _name(form))
        case "merge":
            into = _class(state, form, "into")
            source = _class(state, form)
            if source == into or state.is_fixed(source) or state.is_fixed(into):
                raise InputError("choose two different kinds of defects to merge")
            return _merge(state, source, into)
        case "apart":
            pair = _class(state, form), _class(state, form, "other")
            return Apart(pair), "They stay apart"
        case "confirm_all":
            return _all_confirmed(review, state, _class(state, form))
        case "split":
            return _split(review, state, form)
        case "undo":
            decision = form.get("decision", "")
            if decision not in {one.id for one in review.decisions}:
                raise InputError("this decision does not exist")
            return Undo(decision), "Undone"
    regions, images = review.addressed(_rows(form))
    drawn = form.get("drawn") == "yes"
    count = "1 region" if len(regions) == 1 else f"{len(regions)} regions"
    match what:
        case "confirm" if "class" in form:
            class_id = _class(state, form)
            confirmed = f"{count} confirmed as {short(state.name_of(class_id))}"
            if class_id in REASONS:
                return Reject(regions, images, class_id, drawn), confirmed
            if state.is_fixed(class_id):
                raise InputError(_NOTHING_TO_CONFIRM)
            return Confirm(regions, images, class_id, drawn), confirmed
        case "deny":
            class_id = _class(state, form)
            text = f"{count}: not {short(state.name_of(class_id))}"
            return Deny(regions, images, class_id, drawn), text
        case "move":
            return _moved(state, form, (regions, images), drawn, count)
        case "reject" if form.get("reason") in REASONS:
            reason = form["reason"]
            return Reject(regions, images, reason, drawn), f"{count}: {REASONS[reason]}"
    raise InputError(f"{what[:60]!r}: no decision that the page can make")


def confirmations(review: Review, form: Mapping[str, str]) -> tuple[list[Action], str]:
    """Each of the selected regions is right in the class it is in: one decision for each class.

    Those that are in no class of defects are left out.

    Raises:
        InputError: there are no others, or regions that the run does not have.
    """
    state = review.state
    by_class: dict[str, list[int]] = {}
    for row in _rows(form):
        review.addressed([row])
        if not state.is_fixed(class_id := state.class_of(row)):
            by_class.setdefault(class_id, []).append(row)
    if not by_class:
        raise InputError(_NOTHING_TO_CONFIRM)
    actions: list[Action] = [
        Confirm(*review.addressed(rows), class_id) for class_id, rows in by_class.items()
    ]
    count = sum(map(len, by_class.values()))
    return actions, f"{count} region{'s' * (count != 1)} confirmed"


def _named(state: State, class_id: str, name: str) -> tuple[Action, str]:
    if state.is_fixed(class_id):
        raise InputError(f"{state.name_of(class_id)!r} keeps its name")
    other = state.named(name)
    if other is not None and other != class_id:  # two classes of one name are one kind
        if state.is_fixed(other):
            raise InputError(f"{name!r} is not the name of a kind of defects; choose another")
        return _merge(state, class_id, other)
    return Name(class_id, name), f"Named {short(name)}"


def _all_confirmed(review: Review, state: State, class_id: str) -> tuple[Action, str]:
    """Every region of a class that nobody has decided about is right."""
    rows = state.members(class_id)
    rows = rows[~state.decided[rows]]
    if state.is_fixed(class_id) or not len(rows):
        raise InputError("no region of this class is left to confirm")
    text = f"{len(rows)} region{'s' * (len(rows) != 1)} confirmed"
    return Confirm(*review.addressed(rows.tolist()), class_id), text


def _merge(state: State, source: str, into: str) -> tuple[Action, str]:
    text = f"Merged {short(state.name_of(source))} into {short(state.name_of(into))}"
    return Merge((source, into), into), text


def _moved(
    state: State,
    form: Mapping[str, str],
    addressed: tuple[tuple[int, ...], tuple[str, ...]],
    drawn: bool,
    count: str,
) -> tuple[Action, str]:
    if form.get("class") and not form.get("name"):
        class_id, name = _class(state, form), ""
    elif form.get("class"):  # a class that has no name so far gets one, unless it is another's
        class_id, name = _class(state, form), _name(form)
        known = state.named(name)
        if known is not None or not state.is_unnamed(class_id):
            class_id, name = (known, "") if known else (new_class_id(), name)
    else:
        name = _name(form)
        known = state.named(name)
        class_id, name = (known, "") if known else (new_class_id(), name)
    shown = short(name or state.name_of(class_id))
    if state.is_fixed(class_id):
        if class_id in REASONS:
            return Reject(*addressed, class_id, drawn), f"{count}: {shown}"
        raise InputError("no region can be moved to unknown; say which class it is not instead")
    return Move(*addressed, class_id, name, drawn), f"{count} moved to {shown}"


def _split(review: Review, state: State, form: Mapping[str, str]) -> tuple[Action, str]:
    class_id = _class(state, form)
    rows = state.members(class_id)
    if form.get("of") != proposals.fingerprint(rows):
        raise InputError("the class has changed since this proposal; look at the new one")
    number = form.get("parts", "")
    if number not in map(str, range(2, proposals.MAX_PARTS + 1)):
        raise InputError(f"{number[:60]!r} parts; expected 2 to {proposals.MAX_PARTS}")
    parts = proposals.split(review.regions.tokens[rows], int(number))
    leaving = np.flatnonzero(parts > 0)  # the largest part stays
    regions, images = review.addressed(rows[leaving].tolist())
    text = f"Split {short(state.name_of(class_id))} into {int(parts.max()) + 1} classes"
    return Split(regions, images, class_id, tuple(parts[leaving].tolist())), text


def _class(state: State, form: Mapping[str, str], key: str = "class") -> str:
    class_id = form.get(key, "")
    if class_id not in state.class_ids and not state.is_fixed(class_id):
        raise InputError("this class does not exist any more")
    return class_id


def _name(form: Mapping[str, str]) -> str:
    name = form.get("name", "").strip()
    if not name:
        raise InputError("no name is given")
    require_short(name)
    return name


def _rows(form: Mapping[str, str]) -> list[int]:
    texts = [text for text in form.get("regions", "").split(",") if text]
    if not texts:
        raise InputError("no region is selected")
    if not all(text.isascii() and text.isdigit() and len(text) < 10 for text in texts):
        raise InputError("regions are given by their numbers")
    return sorted(set(map(int, texts)))
