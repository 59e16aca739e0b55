"""The identity of a run: the settings that determine its results, and the content of its inputs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anomalyncd.config import BackboneConfig
from anomalyncd.errors import InputError
from anomalyncd.storage.cache import digest_files
from anomalyncd.types import Dataset

_RESOURCES = ("memory_gb", "forward_batch")  # affect speed and memory only
_PATHS = ("path", "checkpoint", "good")
_SHOWN = 3  # names per kind of change

# By role ("image", "truth mask", …) and by a name without the folder: paths …
Files = Mapping[str, Mapping[str, Path]]
Digests = dict[str, dict[str, str]]  # … and digests of the content


def result_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without those of resources, and with resolved paths.

    Args:
        settings: nested like the configuration. `options` of custom models and detectors are not
            changed.
    """
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if key in _RESOURCES:
            continue
        if isinstance(value, Mapping) and key != "options":
            value = result_settings(value)
        elif key in _PATHS and isinstance(value, str):
            value = os.path.realpath(value)
        found[key] = value
    return found


def digests(files: Files) -> Digests:
    """Hash each file's content.

    Raises:
        InputError: a file cannot be read.
    """
    return {
        role: dict(zip(named, digest_files(named.values()), strict=True))
        for role, named in files.items()
    }


def files_of(dataset: Dataset, role: str = "") -> dict[str, dict[str, Path]]:
    """Images and truth masks by the samples' names; `role` is a prefix, as in "base image"."""
    masks = {sample.id: sample.truth_mask for sample in dataset.samples}
    return {
        f"{role}image": {sample.id: sample.image for sample in dataset.samples},
        f"{role}truth mask": {name: path for name, path in masks.items() if path is not None},
    }


def weights_file(config: BackboneConfig, key: str = "backbone", moved: str = "") -> Path | None:
    """The user's file of weights; None if they come from elsewhere.

    Args:
        config: of the network.
        key: the configuration key, for the message.
        moved: for the network of a finished run: how to pass the file's new place.

    Raises:
        InputError: it does not exist.
    """
    if config.checkpoint is None:
        return None
    path = Path(config.checkpoint)
    if not path.is_file():
        raise InputError(f"{path}: no such weights file; set {moved or key + '.checkpoint=…'}")
    return path


def difference(before: Digests, now: Digests) -> str:
    """How inputs differ: "2 images changed (a, b), 1 truth mask removed (c)"; "" if equal."""
    changes_found = []
    for role in {**before, **now}:
        old, new = before.get(role, {}), now.get(role, {})
        changes = {
            "changed": [name for name in new if name in old and old[name] != new[name]],
            "added": [name for name in new if name not in old],
            "removed": [name for name in old if name not in new],
        }
        for change, names in changes.items():
            if names:
                shown = ", ".join(_printable(name) for name in names[:_SHOWN])
                more = ", …" if len(names) > _SHOWN else ""
                plural = "s" if len(names) > 1 else ""
                changes_found.append(
                    f"{len(names)} {_printable(role)}{plural} {change} ({shown}{more})"
                )
    return ", ".join(changes_found)


def _printable(name: str) -> str:
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)
