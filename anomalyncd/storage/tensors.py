"""Named tensors in a safetensors file with a JSON header; no pickles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from anomalyncd.errors import InputError
from anomalyncd.storage import foreign
from anomalyncd.storage.atomic import atomic_write

_FORMAT = 3  # 2: frozen weights are identified by their file's hash; 3: settings have new names
_KEY = "anomalyncd"


def save_tensors(path: Path, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
    """Write tensors and a JSON header, atomically.

    Raises:
        InputError: the file cannot be written.
    """
    own = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    with atomic_write(path) as draft:
        draft.touch()
        mode = draft.stat().st_mode  # as of any other file; safetensors lets nobody else read its
        try:
            save_file(own, draft, metadata={_KEY: json.dumps({"format": _FORMAT, **header})})
        except SafetensorError as error:  # its error on a full disk
            raise OSError(str(error)) from error
        draft.chmod(mode)


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the header of a file written by `save_tensors`.

    Raises:
        InputError: the file is not one of these, damaged, or of another version.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = foreign.parse_json((file.metadata() or {})[_KEY], f"{path}: its header")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise InputError(f"{path}: not written by anomalyncd, or damaged ({error})") from error
    found = header.get("format") if isinstance(header, dict) else None
    if found != _FORMAT:
        raise InputError(f"{path}: format {str(found)[:60]}; this version reads format {_FORMAT}")
    return tensors, header


@torch.no_grad()
def copy_tensors(
    tensors: dict[str, Tensor], parameters: dict[str, nn.Parameter], path: Path
) -> None:
    """Copy stored tensors into the parameters of the same names.

    Raises:
        InputError: a tensor has another shape or type, or is not finite.
    """
    for name, tensor in tensors.items():
        require_like(tensor, parameters[name], name, path)
        parameters[name].copy_(tensor)


def require_like(tensor: Tensor, own: Tensor, name: str, path: Path) -> None:
    """Check that a stored tensor can replace one of the network.

    Raises:
        InputError: it has another shape or type, or is not finite.
    """
    if tensor.shape != own.shape:
        raise InputError(f"{path}: {name} is {tuple(tensor.shape)}; expected {tuple(own.shape)}")
    if tensor.dtype != own.dtype:
        raise InputError(f"{path}: {name} has type {tensor.dtype}; expected {own.dtype}")
    if not tensor.isfinite().all():
        raise InputError(f"{path}: {name} holds values that are not finite numbers; train again")
