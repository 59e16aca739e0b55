"""Read files from untrusted sources as plain data: bounded in size, never resolved or executed.

The returned data is checked, so that later code can rely on it. Every fault is an InputError that
names the file.
"""

from __future__ import annotations

import json
import math
import stat
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml  # type: ignore[import-untyped]
from omegaconf import MISSING as NOT_SET

from anomalyncd import typed
from anomalyncd.config import RENAMED
from anomalyncd.errors import InputError

MAX_DEPTH = 20  # of nested dictionaries and lists; libyaml crashes at about ten thousand
MAX_TEXT = 10_000  # characters in one text
MAX_BYTES = 1_000_000
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the one in C is 15 times as fast

_EARLIER = {name.rpartition(".")[2] for name in RENAMED}

Schema = TypeVar("Schema")


def read_yaml(path: Path, max_bytes: int = MAX_BYTES) -> Any:
    """The plain data of a YAML file; `${…}` is not resolved.

    Raises:
        InputError: the file is not YAML, too large, too deeply nested, holds aliases (few bytes
            can expand to gigabytes), or anything but plain data.
    """
    text = _read_text(path, max_bytes)
    try:
        depth = 0
        for event in yaml.parse(text, _LOADER):  # before any object is built
            if isinstance(event, yaml.AliasEvent):
                raise InputError(f"{path}: holds YAML aliases; expected plain values")
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise InputError(f"{path}: nested more than {MAX_DEPTH} deep")
        data = yaml.load(text, _LOADER)
    except InputError:
        raise
    except Exception as error:  # any error of yaml
        raise InputError(f"{path}: not YAML ({_brief(error)})") from error
    require_plain(data, str(path))
    return data


def read_json(path: Path, max_bytes: int = MAX_BYTES) -> Any:
    """The plain data of a JSON file.

    Raises:
        InputError: the file is not JSON, too large, too deeply nested, or holds numbers that are
            not finite.
    """
    return parse_json(_read_text(path, max_bytes), str(path))


def parse_json(text: str, where: str) -> Any:
    """The plain data of a JSON text.

    Raises:
        InputError: as in `read_json`; `where` names the source.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not JSON ({_brief(error)})") from error
    require_plain(data, where)
    return data


def require_plain(data: Any, where: str, depth: int = 0) -> None:
    """Allow only dictionaries with text keys, lists, text, finite numbers, booleans and None.

    Raises:
        InputError: the data holds anything else, or is nested too deeply or too large.
    """
    if depth > MAX_DEPTH:
        raise InputError(f"{where}: nested more than {MAX_DEPTH} deep")
    match data:
        case None | bool():
            return
        case int() if abs(data) < 2**63:
            return
        case float() if math.isfinite(data):
            return
        case str() if len(data) <= MAX_TEXT:
            return
        case str():
            raise InputError(f"{where}: a text of {len(data)} characters")
        case list():
            for value in data:
                require_plain(value, where, depth + 1)
            return
        case dict():
            for key, value in data.items():
                if not isinstance(key, str) or len(key) > MAX_TEXT:
                    raise InputError(f"{where}: a key of type {type(key).__name__}; expected text")
                require_plain(value, where, depth + 1)
            return
    shown = "a number out of range" if isinstance(data, int | float) else type(data).__name__
    raise InputError(f"{where}: holds {shown}; expected text, finite numbers, lists or groups")


def build(schema: type[Schema], data: Any, where: str, *, complete: bool = False) -> Schema:
    """Build a dataclass from plain data; annotated types and the class's own rules are checked.

    Args:
        schema: a dataclass whose fields are plain, or lists, tuples and dataclasses of such.
        data: must hold the fields without a default, and may hold the others.
        where: the file, and the key of this group if it has one; for messages.
        complete: require fields with a default too, also in nested groups.

    Raises:
        InputError: data is not a group, a key is unknown or missing, or a value is wrong.
    """
    if not isinstance(data, dict):
        raise InputError(f"{where}: expected a group of settings, found {typed.named(data)}")
    known = {field.name: field for field in fields(cast(Any, schema))}
    if unknown := [key for key in data if key not in known]:
        key = str(unknown[0])
        by = "an earlier version, which used this name" if key in _EARLIER else "a newer version?"
        raise InputError(f"{where}: {key[:100]}: this version does not know it; written by {by}")

    def group(kind: type, value: Any, place: str) -> Any:
        return build(kind, value, place, complete=complete)

    values = {}
    hints = typed.hints(cast(Any, schema))
    for name, field in known.items():
        if name in data:
            values[name] = typed.converted(hints[name], data[name], f"{where}: {name}", group)
        elif complete or (field.default in (MISSING, NOT_SET) and field.default_factory is MISSING):
            raise InputError(f"{where}: {name} is missing")
    try:
        return schema(**values)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _read_text(path: Path, max_bytes: int) -> str:
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # reading a pipe would block forever
            raise InputError(f"{path}: expected a regular file")
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    if len(content) > max_bytes:
        raise InputError(f"{path}: larger than {max_bytes:,} bytes, the limit for such a file")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error.reason} at {error.start})") from error


def _brief(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
