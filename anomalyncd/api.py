"""The package for notebooks: `anomalyncd.discover` and `anomalyncd.compose`."""

from __future__ import annotations

import re
from pathlib import Path, PurePath
from typing import Any

from anomalyncd.cli.discover import settled
from anomalyncd.cli.discover.check import Request
from anomalyncd.cli.settings import composing, entry
from anomalyncd.config import Config
from anomalyncd.run import RunResult, execute


def discover(
    photos: str | Path,
    *,
    classes: int | None = None,
    good: str | Path | None = None,
    labels_from_folders: bool = False,
    skip_unreadable: bool = False,
    output_root: str | Path = "outputs",
    **settings: Any,
) -> RunResult:
    """Find the kinds of defects in a folder of photographs; nothing is downloaded.

    The same as `anomalyncd discover`: a finished discovery is returned without computing it again,
    an interrupted one is resumed.

    Args:
        photos: a folder of images, at any depth.
        classes: how many classes to find, including the defect-free one; None: it is estimated.
        good: a folder of known-good photographs, with which images are compared; None: they are
            compared with each other.
        labels_from_folders: the sub-folders of `photos` are the true classes, used for scores.
        skip_unreadable: leave out images that cannot be read.
        output_root: the run creates its own folder below this one.
        **settings: other settings of a run, with double underscores for dots: `train__epochs=100`.
            Paths, lists and dictionaries are accepted as well.

    Returns:
        The run's folder, with report.html and predictions.csv in it, and its metrics.

    Raises:
        InputError: the photographs or a setting cannot be used; all problems are named.

    Example:
        >>> result = anomalyncd.discover("photos", classes=3)  # doctest: +SKIP
        >>> result.metrics["counts"]["regions"]  # doctest: +SKIP
        41
    """
    given = {"tracker": "none", "output_root": str(output_root), **settings}
    overrides = [_override(key.replace("__", "."), value) for key, value in given.items()]
    known_good = None if good is None else str(good)
    request = Request(
        str(photos), known_good, classes, labels_from_folders, skip_unreadable, tuple(overrides)
    )
    return execute(settled(request)[0])


def compose(*overrides: str) -> Config:
    """The configuration that `anomalyncd run` would use.

    Args:
        *overrides: settings as on the command line: `"dataset=mvtec"`, `"train.epochs=10"`.

    Raises:
        InputError: a setting is unknown, missing or invalid.

    Example:
        >>> anomalyncd.compose("train.epochs=10").train.epochs
        10
    """
    return composing.compose(overrides)


def _override(key: str, value: Any) -> str:
    # Dictionaries are options, whose keys the schema does not list.
    new_keys = "++" if isinstance(value, dict) else ""
    return f"{new_keys}{key}={_in_hydra_syntax(value)}"


def _in_hydra_syntax(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case str() | PurePath():
            return entry.quoted(str(value))
        case dict():
            pairs = (f"{_escaped(str(k))}:{_in_hydra_syntax(v)}" for k, v in value.items())
            return f"{{{','.join(pairs)}}}"
        case list() | tuple():
            return f"[{','.join(map(_in_hydra_syntax, value))}]"
    return str(value)


def _escaped(key: str) -> str:
    r"""A key of a dictionary; Hydra does not accept it in quotes."""
    return re.sub(r"([\\()\[\]{}:=, \t])", r"\\\1", key)
