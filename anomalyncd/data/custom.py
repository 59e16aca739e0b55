"""Checks of a dataset that a user's own function returned, before anything relies on it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from anomalyncd.errors import InputError
from anomalyncd.types import UNLABELLED, Dataset, Sample


def require_sound(dataset: Any, source: str) -> Dataset:
    """Return the dataset, after checking that its samples and labels are as `types` describes.

    Args:
        dataset: what the function returned.
        source: the setting that names the function, for messages.

    Raises:
        InputError: it is not a valid dataset; the message names the first fault.
    """
    if not isinstance(dataset, Dataset):
        raise InputError(
            f"{source}: returned {type(dataset).__name__}; expected an anomalyncd.types.Dataset"
        )
    if not dataset.samples:
        raise InputError(f"{source}: returned no samples; expected some")
    for sample in dataset.samples:
        if not isinstance(sample, Sample):
            raise InputError(f"{source}: {sample!r} is among its samples; expected Sample objects")
        _require_name(sample.id, source)
        masks = () if sample.truth_mask is None else (sample.truth_mask,)
        _require_paths((sample.image, *masks), f"{source}: sample {sample.id!r}")
    _require_paths(dataset.train, f"{source}: train")
    (name, count), *_ = Counter(sample.id for sample in dataset.samples).most_common(1)
    if count > 1:
        raise InputError(
            f"{source}: {count} samples have the id {name!r}; expected a different id for each, "
            "since it names the map"
        )
    if dataset.labels is not None:
        _require_labels(dataset, source)
    return dataset


def _require_name(name: Any, source: str) -> None:
    """It becomes the path of a map below a folder of the cache, and must stay there."""
    is_text = isinstance(name, str) and not set(name) & set("\\\0")
    if not is_text or any(part in ("", ".", "..") for part in name.split("/")):
        raise InputError(
            f"{source}: a sample's id is {name!r}; expected text such as dent/001, which names "
            "a file below a folder"
        )


def _require_paths(paths: Any, what: str) -> None:
    for path in paths:
        if not isinstance(path, Path):
            raise InputError(f"{what}: {path!r} is a {type(path).__name__}; expected a Path")


def _require_labels(dataset: Dataset, source: str) -> None:
    assert dataset.labels is not None
    classes, targets = dataset.labels.classes, dataset.labels.targets
    n, k = len(dataset.samples), len(classes)
    if len(set(classes)) < k or not all(isinstance(name, str) for name in classes):
        raise InputError(f"{source}: classes {classes!r}; expected different texts")
    is_array = isinstance(targets, np.ndarray) and targets.dtype.kind in "iu"
    if not is_array or targets.shape != (n,):
        found = (
            f"{targets.dtype} {targets.shape}"
            if isinstance(targets, np.ndarray)
            else type(targets).__name__
        )
        raise InputError(
            f"{source}: targets: found {found}; expected an integer array of shape ({n},), one for "
            "each sample"
        )
    out = targets[(targets < UNLABELLED) | (targets >= k)]
    if out.size:
        raise InputError(
            f"{source}: a target is {out[0]}; expected 0 to {k - 1} for {k} classes, or "
            f"{UNLABELLED} for an image without a label"
        )
    if dataset.labels.normal not in ((None, 0) if k else (None,)):
        raise InputError(
            f"{source}: normal is {dataset.labels.normal}; expected 0 (the defect-free class goes "
            "first) or None (there is no such class)"
        )
