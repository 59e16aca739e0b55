"""What a finished run knows of its own regions: their place, their class and their features.

Read by all that compares new regions with known ones. The files may come from another machine, be
damaged or be forged, so they are checked like any other file.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from anomalyncd.errors import InputError
from anomalyncd.inference.unknown import MOST, Seen
from anomalyncd.storage.tensors import load_tensors, save_tensors
from anomalyncd.types import VERDICTS

FEATURES = "features.safetensors"
_TOKENS = "tokens"
_LOOKS = "looks"
_SEEN = ("region", "image")  # each with `…_appearance` and `…_number`


@dataclass(frozen=True)
class KnownRegions:
    """Regions in the order of regions.csv, n of them."""

    images: tuple[Path, ...]  # (n,) the photograph of each; it may have been moved since
    boxes: NDArray[np.int64]  # (n, 4) left, top, right, bottom in image pixels
    areas: NDArray[np.int64]  # (n,) anomalous pixels; 0: no main element, the region is the image
    classes: NDArray[np.int64]  # (n,) ids, or of a verdict
    class_names: tuple[str, ...]  # (n,)
    confidences: NDArray[np.float64]  # (n,)
    tokens: NDArray[np.float32]  # (n, width) class tokens of the run's network
    ids: tuple[str, ...]  # (n,) of the photograph of each
    # (n, width) see `appearance.in_every_turn`; None: the run's version kept none
    looks: NDArray[np.float32] | None


def write(
    run: Path,
    tokens: NDArray[np.float32],
    looks: NDArray[np.float32] | None,
    regions: Seen,
    images: Seen,
) -> None:
    """Keep features of a run's regions and images, in half precision.

    Args:
        run: its folder.
        tokens: (n, width) class tokens of all regions.
        looks: (n, width) of all regions, see `appearance.in_every_turn`; None: not known.
        regions: how those with a main element look.
        images: how whole images look.

    Raises:
        InputError: the file cannot be written.
    """
    kept = {_TOKENS: torch.from_numpy(tokens).half()}
    if looks is not None:
        kept[_LOOKS] = torch.from_numpy(looks).half()
    for name, seen in zip(_SEEN, (regions, images), strict=True):
        kept[f"{name}_appearance"] = torch.from_numpy(seen.features).half()
        kept[f"{name}_number"] = torch.from_numpy(seen.images.copy())  # not shared
    save_tensors(run / FEATURES, kept, {})


def read(run: Path) -> KnownRegions:
    """The regions of a finished run.

    Raises:
        InputError: a file is missing, damaged, or does not belong to the others.
    """
    path = run / "regions.csv"
    images = {
        row["id"]: row["image"] for row in read_rows(run / "predictions.csv", ("id", "image"))
    }
    columns = ("id", "left", "top", "right", "bottom", "area", "class", "class_name", "confidence")
    rows = read_rows(path, columns)
    if unknown := next((row["id"] for row in rows if row["id"] not in images), None):
        raise InputError(f"{path}: image {unknown[:60]!r} is not in predictions.csv")
    return KnownRegions(
        images=tuple(Path(images[row["id"]]) for row in rows),
        boxes=_numbers(rows, columns[1:5], int, path),
        areas=_numbers(rows, ("area",), int, path)[:, 0],
        classes=_classes(rows, path),
        class_names=tuple(row["class_name"] for row in rows),
        confidences=_numbers(rows, ("confidence",), float, path)[:, 0],
        ids=tuple(row["id"] for row in rows),
        **_features(run / FEATURES, len(rows)),
    )


def photographs(run: Path) -> list[Path]:
    """The photographs of a finished run; they may have been moved since.

    Raises:
        InputError: its table is missing or damaged.
    """
    return [Path(row["image"]) for row in read_rows(run / "predictions.csv", ("image",))]


def read_seen(run: Path, width: int) -> tuple[Seen, Seen] | None:
    """How a finished run's regions and its images look, to compare new ones with.

    Args:
        run: its folder.
        width: of the features of the run's network.

    Returns:
        None if the run is of an earlier version, which kept nothing of this.

    Raises:
        InputError: the file is damaged, or does not belong to the network.
    """
    path = run / FEATURES
    if not path.is_file():
        return None
    kept = load_tensors(path)[0]
    if kept.keys() == {_TOKENS}:
        return None
    regions, images = (_seen(kept, name, width, path) for name in _SEEN)
    return regions, images


def _seen(kept: dict[str, torch.Tensor], name: str, width: int, path: Path) -> Seen:
    features, numbers = kept.get(f"{name}_appearance"), kept.get(f"{name}_number")
    if (
        features is None
        or numbers is None
        or features.dtype != torch.float16
        or numbers.dtype != torch.int64
        or features.ndim != 2
        or features.shape[1] != width
        or numbers.shape != features.shape[:1]
        or len(features) > MOST
        or not features.isfinite().all()
    ):
        raise InputError(
            f"{path}: {name}_appearance and {name}_number do not fit each other or the network; "
            "compute the run again"
        )
    return Seen(features.float().numpy(), numbers.numpy())


def _features(path: Path, regions: int) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"{path}: no such file; repeat the run, its version did not write one yet")
    kept = load_tensors(path)[0]
    found: dict[str, NDArray[np.float32] | None] = {_LOOKS: None}
    for name in (_TOKENS, *(kept.keys() & {_LOOKS})):
        tensor = kept.get(name)
        if (
            tensor is None
            or tensor.dtype != torch.float16
            or tensor.ndim != 2
            or len(tensor) != regions
            or not tensor.shape[1]
        ):
            raise InputError(
                f"{path}: does not hold the features of the {regions} regions of the run ({name}); "
                "compute the run again"
            )
        if not tensor.isfinite().all():
            raise InputError(f"{path}: {name} holds values that are not finite numbers")
        found[name] = tensor.float().numpy()
    return found


def read_rows(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """The rows of a table.

    Raises:
        InputError: it cannot be read, or lacks one of the columns.
    """
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            reader = csv.DictReader(file)
            if missing := [name for name in columns if name not in (reader.fieldnames or ())]:
                raise InputError(f"{path}: has no column {missing[0]}")
            rows = list(reader)
    except (OSError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    for number, row in enumerate(rows, 2):
        if any(row[name] is None for name in columns):
            raise InputError(f"{path}: line {number} has too few columns")
    return rows


def _classes(rows: list[dict[str, str]], path: Path) -> NDArray[np.int64]:
    """(n,) ids; a verdict is written as its word."""
    ids = {word: str(number) for number, word in VERDICTS.items()}
    named = [{"class": ids.get(row["class"], row["class"])} for row in rows]
    return _numbers(named, ("class",), int, path)[:, 0]


def _numbers(
    rows: list[dict[str, str]], columns: tuple[str, ...], kind: type[int | float], path: Path
) -> NDArray:
    """(rows, columns) numbers."""
    try:
        found = [[kind(row[name]) for name in columns] for row in rows]
        return np.array(found, kind).reshape(len(rows), len(columns))
    except (ValueError, OverflowError) as error:
        raise InputError(f"{path}: {', '.join(columns)}: not a number ({error})") from error
