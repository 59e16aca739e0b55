"""The list that ties class ids to names: only appended to, and checked when it is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomalyncd.errors import InputError
from anomalyncd.storage import class_list
from anomalyncd.storage.class_list import FORMAT, ClassList, NamedClass

NAMES = ("good", "dent", "class 2")


def first() -> ClassList:
    return ClassList(FORMAT, tuple(NamedClass(k, name, 0) for k, name in enumerate(NAMES)))


@given(st.lists(st.integers(0, 5), max_size=6))
def test_ids_and_names_never_change(counts: list[int]) -> None:
    before = first()
    for extension, count in enumerate(counts, 1):
        after = before.appended(count, extension)
        assert after.classes[: len(before.classes)] == before.classes
        assert [one.since for one in after.classes[len(before.classes) :]] == [extension] * count
        assert len(set(after.names)) == len(after.names) == len(before.names) + count
        before = after


def test_a_new_class_has_a_name_of_its_own() -> None:
    named = ClassList(FORMAT, (NamedClass(0, "class 2", 0), NamedClass(1, "class 2 (2)", 0)))
    assert named.appended(1, 1).names == ("class 2", "class 2 (2)", "class 2 (3)")


def test_what_is_written_is_read(tmp_path: Path) -> None:
    written = first().appended(2, 1)
    (tmp_path / class_list.FILE).write_text(json.dumps(written.as_json()))
    assert class_list.read(tmp_path, written.names) == written


def test_a_run_without_a_list_has_the_names_of_its_model(tmp_path: Path) -> None:
    assert class_list.read(tmp_path, NAMES) == first()


def changed(place: int, **values: Any) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(json.dumps(first().appended(1, 2).as_json()))
    content["classes"][place] |= values
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({**first().as_json(), "format": 2}, "format 2; this version reads format 1"),
        (first().as_json(), "3 classes, but the model of this run has 4"),
        (changed(1, id=2), "class 2 at place 1; expected ids 0, 1, 2"),
        (changed(0, since=3), "class 1 is of extension 0, before class 0"),
        (changed(1, name="good"), "two classes have the name 'good'"),
        (changed(1, name="unknown"), "'unknown', which is a verdict"),
        (changed(1, name=" "), "no usable name"),
        (changed(1, name="a\nb"), "no usable name"),
        (changed(1, name=3), "name: expected text"),
        (changed(1, colour="red"), "does not know it"),
        ([], "expected a group"),
    ],
)
def test_a_list_that_was_changed_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    (tmp_path / class_list.FILE).write_text(json.dumps(content))
    with pytest.raises(InputError, match=message) as error:
        class_list.read(tmp_path, (*NAMES, "class 3"))
    assert str(tmp_path / class_list.FILE) in str(error.value)
