"""Files with one thing changed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

Change = Callable[[dict[str, torch.Tensor], dict[str, str]], None]


def tamper(path: Path, change: Change) -> None:
    """Apply a change to the tensors and the header of a safetensors file, which must change it."""
    with safe_open(path, "pt") as file:
        header = file.metadata()
    tensors, before = load_file(path), path.read_bytes()
    change(tensors, header)
    save_file(tensors, path, metadata=header)
    assert path.read_bytes() != before, "the change changes nothing"


def tampered(header: Any, key: str, value: Any) -> Any:
    """A copy of a header with one value replaced, or removed where it is `...`."""
    header = copy.deepcopy(header)
    *above, last = key.split(".")
    group = header
    for name in above:
        group = group[name]
    if value is ...:
        del group[last]
    else:
        group[last] = value
    return header
