"""Explain a wrong override in one line; Hydra's own messages are longer, and advise to append keys
that nothing would read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from typing import Any, cast

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from anomalyncd.config import renamed, schemas
from anomalyncd.errors import InputError

GROUPS = ("experiment", "ablation", "compat", "launcher")  # selected like settings
RENAMED_OPTIONS = {"ablation": {"mask_on": "masked_queries"}}  # of groups: old name → new name
_AMBIGUOUS = r"Ambiguous value for argument '(.*)'"
_SET_ALREADY = (
    r"Multiple values for ([\w./]+)\.",
    r"Could not append to config\. An item is already at '(.*?)'",
)
_NO_CHOICE = r"Config group override must be a string"
_OVERRIDE = r"Could not override '(.*?)'"
_UNKNOWN = r"Could not override '(.*?)'\.\s+No match in the defaults list"


def require_known(composed: DictConfig) -> None:
    """Reject keys that were appended to a schema.

    Raises:
        InputError: it names such a key, and the setting that was probably meant.
    """
    if unknown := _first_unknown(composed, ""):
        raise InputError(_no_such_setting(unknown, cast(type, OmegaConf.get_type(composed))))


def explained(error: Exception, root: type, overrides: Sequence[str]) -> str:
    """An error of Hydra or OmegaConf about an override, as one line for the user.

    Args:
        error: raised by Hydra or OmegaConf.
        root: schema of the command's configuration.
        overrides: all that the user gave.
    """
    text = str(error)
    if found := re.match(_AMBIGUOUS, text):
        return (
            f"{found[1]}: several values; add -m to run one after "
            "the other, write a list as key=[a,b] and one text as \"key='a,b'\""
        )
    if re.match(_NO_CHOICE, text):
        return (
            f"{_without_a_name(overrides)}: expected the name of an option, such as "
            "dataset=folder, detector=files or tracker=none"
        )
    for pattern in _SET_ALREADY:
        if found := re.match(pattern, text):
            return f"{found[1]}: already has a value; write it without +: {found[1]}=…"
    if found := re.match(_UNKNOWN, text):
        return _no_such_setting(found[1], root)
    if (found := re.match(_OVERRIDE, text)) and renamed(found[1]):
        return _no_such_setting(found[1], root)
    match error, error.__cause__:
        case OverrideParseException(override=override), _:
            return (
                f"{override}: expected key=value without spaces around the =; a value with other "
                "characters than plain letters needs inner quotes: \"key='value'\""
            )
        case MissingConfigException(options=[*options], missing_cfg_file=str(name)), _:
            group, _, option = name.rpartition("/")
            if new := RENAMED_OPTIONS.get(group, {}).get(option):
                return f"{group}={option}: is now called {group}={new}"
            meant = get_close_matches(option, options, n=1)
            suggestion = f"did you mean {meant[0]}? " if meant else ""
            return f"{group}={option}: no such option; {suggestion}options: {_listed(options)}"
        case _, ConfigAttributeError(full_key=str(key)) | ConfigKeyError(full_key=str(key)):
            return _no_such_setting(key, root)
        case _, OmegaConfBaseException() as cause:
            override = text.removeprefix("Error merging override ")
            return f"{override}: {without_details(cause)}"
    return " ".join(without_details(error).split())


def without_details(error: Exception) -> str:
    """The message of an OmegaConf error, without the lines on its internal types."""
    return str(error).split("\n    full_key")[0]


def _without_a_name(overrides: Sequence[str]) -> str:
    """The override that chooses from a group with a number or with nothing; Hydra names only the
    type of its value."""
    groups = {*GROUPS, *(group.removeprefix("schema/") for group, _, _ in schemas())}
    for override in overrides:
        with suppress(OverrideParseException):
            parsed = OverridesParser.create().parse_override(override)
            if parsed.key_or_group in groups and not isinstance(parsed.value(), str | list):
                return override
    return " ".join(overrides)


def _first_unknown(node: DictConfig, above: str) -> str | None:
    schema = OmegaConf.get_type(node)
    if not is_dataclass(schema):  # a dictionary of free keys, such as `detector.options`
        return None
    known = {field.name for field in fields(schema)}
    for key in map(str, node):
        if key not in known:
            return above + key
        if OmegaConf.is_missing(node, key) or OmegaConf.is_interpolation(node, key):
            continue
        below = node[key]
        if isinstance(below, DictConfig) and (unknown := _first_unknown(below, f"{above}{key}.")):
            return unknown
    return None


def _no_such_setting(key: str, root: type) -> str:
    settings = _settings(root)
    if new := renamed(key):
        return f"{key}: is now called {new}"
    if owners := settings.get(key):  # belongs to another option of the group
        return f"{key}: is a setting of {_listed(owners)}; select that, or remove {key}"
    above, _, name = key.rpartition(".")
    if above in _DICTIONARIES:
        return f"{key}: a new key needs a +: +{key}=…"
    elsewhere = [other for other in settings if other.rpartition(".")[2] == name and other != key]
    known = [*settings, *(GROUPS if "dataset" in settings else ())]
    known = [other for other in known if not key.startswith(f"{other}.")]  # not its group
    meant = elsewhere or get_close_matches(key, known, n=1, cutoff=0.7)
    suggestion = f"did you mean {_listed(meant)}? " if meant else ""
    return f"{key}: no such setting; {suggestion}see anomalyncd/config.py"


def _settings(root: type) -> dict[str, list[str]]:
    """Every dotted key, with the options that have it (`detector=files`) if it is not common."""
    found: dict[str, list[str]] = {key: [] for key in _keys(root, "")}
    for group, name, schema in schemas():
        choice = group.removeprefix("schema/")
        if choice in found:
            for key in _keys(schema, f"{choice}."):
                found.setdefault(key, []).append(f"{choice}={name}")
    return found


def _keys(schema: Any, above: str) -> list[str]:
    keys = []
    for field in fields(schema):
        keys.append(above + field.name)
        if is_dataclass(field.default_factory):
            keys += _keys(field.default_factory, f"{above}{field.name}.")
    return keys


_DICTIONARIES = {
    f"{group.removeprefix('schema/')}.{field.name}"
    for group, _, schema in schemas()
    for field in fields(schema)
    if field.default_factory is dict
}


def _listed(names: list[str]) -> str:
    return ", ".join(names[:-1]) + " or " * (len(names) > 1) + names[-1]
