"""waiting.safetensors: unknown regions that are too few for a class so far.

The next extension looks at them again, without their photographs: these may be gone by then.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from anomalyncd.errors import InputError
from anomalyncd.storage.tensors import load_tensors, save_tensors

FILE = "waiting.safetensors"


@dataclass(frozen=True)
class Waiting:
    """What is kept of m unknown regions beside their rows in regions.csv."""

    rows: NDArray[np.int64]  # (m,) in regions.csv
    descriptors: NDArray[np.float32]  # (m, turns, kinds, width), see `discovery.descriptors`
    looks: NDArray[np.float32]  # (m, width), see `inference.appearance`


def write(run: Path, waiting: Waiting) -> None:
    """Keep them, in half precision.

    Raises:
        InputError: the file cannot be written.
    """
    kept = {
        "rows": torch.from_numpy(waiting.rows),
        "descriptors": torch.from_numpy(waiting.descriptors).half(),
        "looks": torch.from_numpy(waiting.looks).half(),
    }
    save_tensors(run / FILE, kept, {})


def read(run: Path, unknown: NDArray[np.int64], width: int) -> Waiting:
    """The waiting regions of a run; none if it extends no other.

    Args:
        run: its folder.
        unknown: rows of regions.csv that say `unknown`, ascending.
        width: of the network's features.

    Raises:
        InputError: the file is damaged, or is not of these regions.
    """
    path = run / FILE
    if not path.exists() and not len(unknown):
        empty = np.zeros((0, 1, 1, width), np.float32)
        return Waiting(unknown, empty, empty[:, 0, 0])
    kept = load_tensors(path)[0]
    dimensions = {
        "rows": (1, torch.int64),
        "descriptors": (4, torch.half),
        "looks": (2, torch.half),
    }
    for name, (count, kind) in dimensions.items():
        tensor = kept.get(name)
        if tensor is None or tensor.ndim != count or tensor.dtype != kind:
            raise InputError(f"{path}: {name} is missing or of another kind; {_REMEDY}")
        if len(tensor) != len(unknown) or (count > 1 and tensor.shape[-1] != width):
            raise InputError(
                f"{path}: {name} is {tuple(tensor.shape)}, which does not fit the "
                f"{len(unknown)} unknown regions of the run; {_REMEDY}"
            )
        if not tensor.isfinite().all():
            raise InputError(f"{path}: {name} holds values that are not finite numbers; {_REMEDY}")
    if kept["rows"].tolist() != unknown.tolist():
        raise InputError(f"{path}: its rows are not the unknown regions of regions.csv; {_REMEDY}")
    return Waiting(unknown, kept["descriptors"].float().numpy(), kept["looks"].float().numpy())


_REMEDY = "restore the file that the extension wrote"
