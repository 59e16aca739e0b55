"""What is wrong with an override, in one line; Hydra's own words are several and advise to append
keys, which nothing would read."""

from __future__ import annotations

import re
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from typing import Any

from hydra.errors import (
    CompactHydraException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from anomalyncd.config import schemas
from anomalyncd.errors import InputError

GROUPS = ("experiment", "ablation", "compat", "launcher")  # chosen like settings, but are none


def require_known(composed: DictConfig, above: str = "") -> None:
    """Reject keys that were appended to a schema.

    Raises:
        InputError: one was; it is named, with the setting that may have been meant.
    """
    schema = OmegaConf.get_type(composed)
    if not is_dataclass(schema):  # a dictionary of the user's own, as `detector.options`
        return
    known = {field.name for field in fields(schema)}
    for key in map(str, composed):
        if key not in known:
            raise InputError(_no_such_setting(above + key))
        if OmegaConf.is_missing(composed, key) or OmegaConf.is_interpolation(composed, key):
            continue
        if isinstance(composed[key], DictConfig):
            require_known(composed[key], f"{above}{key}.")


def explained(error: CompactHydraException | OmegaConfBaseException) -> str:
    """What Hydra or OmegaConf has to say of an override, as one line for who typed it."""
    if ambiguous := re.match(r"Ambiguous value for argument '(.*)'", str(error)):
        override = ambiguous[1]
        key, _, value = override.partition("=")
        return (
            f"{override}: several values; add -m to run them one after the other, or quote what is "
            f"one: \"{key}='{value}'\""
        )
    match error, error.__cause__:
        case OverrideParseException(override=override), _:
            return (
                f"{override}: expected key=value; a value with other than plain letters needs "
                "inner quotes: \"key='value'\""
            )
        case MissingConfigException(options=[*options], missing_cfg_file=str(name)), _:
            group, _, option = name.rpartition("/")
            return f"{group}={option}: there is no such option; expected {_listed(options)}"
        case _, ConfigAttributeError(full_key=str(key)) | ConfigKeyError(full_key=str(key)):
            return _no_such_setting(key)
        case _, OmegaConfBaseException() as cause:
            override = str(error).removeprefix("Error merging override ")
            return f"{override}: {_without_details(cause)}"
    return " ".join(_without_details(error).split())


def _no_such_setting(key: str) -> str:
    owners = _owners_of_settings()
    if key in owners:  # of another option of its group than the one chosen
        return f"{key}: is a setting of {_listed(owners[key])}; choose that, or leave {key} out"
    name = key.rpartition(".")[2]
    elsewhere = [known for known in owners if known.rpartition(".")[2] == name]
    meant = elsewhere or get_close_matches(key, [*owners, *GROUPS], n=1, cutoff=0.7)
    suggestion = f"did you mean {_listed(meant)}? " if meant else ""
    return f"{key}: there is no such setting; {suggestion}python train.py --help lists all"


def _owners_of_settings() -> dict[str, list[str]]:
    """Every key of every schema, dotted, and of which kinds of choices it is: `detector=files`."""
    owners: dict[str, list[str]] = {}
    for group, name, schema in schemas():
        choice = group.removeprefix("schema/")
        for key in _keys(schema, f"{choice}." if choice else ""):
            owners.setdefault(key, []).append(f"{choice}={name}" if choice else name)
    return owners


def _keys(schema: Any, above: str) -> list[str]:
    keys = []
    for field in fields(schema):
        keys.append(above + field.name)
        if is_dataclass(field.default_factory):
            keys += _keys(field.default_factory, f"{above}{field.name}.")
    return keys


def _listed(names: list[str]) -> str:
    return ", ".join(names[:-1]) + " or " * (len(names) > 1) + names[-1]


def _without_details(error: Exception) -> str:
    return str(error).split("\n    full_key")[0]
