"""Conversion of values to their annotated types, whether a file or Python code gave them."""

from __future__ import annotations

import types
from collections.abc import Callable
from dataclasses import is_dataclass
from functools import cache
from pathlib import PurePath
from typing import Any, Union, get_args, get_origin, get_type_hints

from anomalyncd.errors import InputError

_WORDS = {"str": "text", "int": "a whole number", "float": "a number", "bool": "true or false"}


@cache  # the slowest part
def hints(schema: Any) -> dict[str, Any]:
    """The annotation of each field of a dataclass."""
    return get_type_hints(schema)


def converted(hint: Any, value: Any, where: str, group: Callable[[type, Any, str], Any]) -> Any:
    """A value, checked against and converted to its annotation: int to float, a path to its text.

    Args:
        hint: of plain types, lists and tuples of them, dictionaries, dataclasses, or None.
        value: the value to check.
        where: the place of the value, for messages.
        group: called with a dataclass, a value and `where`; returns the value as that dataclass.

    Raises:
        InputError: it is of another type.
    """
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        if value is None and type(None) in inner:
            return None
        (hint,) = (kind for kind in inner if kind is not type(None))
        return converted(hint, value, where, group)
    if is_dataclass(hint):
        return group(hint, value, where)  # type: ignore[arg-type]  # it is a class
    if origin in (list, tuple):
        several = len(inner) == 1 or inner[-1] is Ellipsis
        is_list = isinstance(value, list | tuple)
        if not is_list or not (several or len(value) == len(inner)):
            many = "a list" if several else f"a list of {len(inner)}"
            raise InputError(f"{where}: expected {many}, found {named(value)}")
        return origin(converted(inner[0], item, where, group) for item in value)
    if origin is dict and isinstance(value, dict):
        return value
    if hint is float and type(value) is int:
        return float(value)
    if hint is str and isinstance(value, PurePath):
        return str(value)
    if origin is not None or type(value) is not hint:
        expected = getattr(origin or hint, "__name__", str(hint))
        raise InputError(
            f"{where}: expected {_WORDS.get(expected, expected)}, found {named(value)}"
        )
    return value


def named(value: Any) -> str:
    """A value for a message, shortened."""
    if isinstance(value, dict | list):
        return f"a {'group' if isinstance(value, dict) else 'list'} of {len(value)}"
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}…"
