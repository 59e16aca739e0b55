"""Where to compute."""

from __future__ import annotations

import torch

from anomalyncd.errors import InputError


def choose(name: str) -> torch.device:
    """`auto` is a GPU where there is one.

    Raises:
        InputError: no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(1, device=name)
        return torch.device(name)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device={name}: not usable here ({error}); use device=auto") from error


def describe(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads"
