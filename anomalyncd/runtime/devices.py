"""Where to compute."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from anomalyncd.errors import InputError


def choose(name: str) -> torch.device:
    """`auto` is a GPU where there is one; under torchrun that and `cuda` are this process's own.

    Raises:
        InputError: no such device.
    """
    if name in ("auto", "cuda") and torch.cuda.is_available():
        name = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    if name == "auto":
        return torch.device("cpu")
    try:
        device = torch.empty(1, device=name).device
        if device.type not in ("cpu", "cuda"):
            raise RuntimeError("only cpu and cuda are supported")
        return device
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise InputError(f"device={name}: not usable here ({reason}); use device=auto") from error


def precision(name: str, device: torch.device) -> torch.dtype:
    """In which numbers frozen blocks compute; `auto` is bfloat16 where the hardware is made for it.

    On CPUs that means AMX. AVX-512's bfloat16 products are half as fast as its float32 ones
    (measured: 73 against 135 GFLOPS a core), so a CPU that has only these stays with float32.
    """
    if name != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = device.type == "cpu" and torch.cpu.get_capabilities().get("amx_tile", False)
    return torch.bfloat16 if native else torch.float32


def has_room(device: torch.device, size: int) -> bool:
    """Whether a GPU's free memory holds `size` bytes twice over; other devices keep no copies."""
    return device.type == "cuda" and 2 * size <= torch.cuda.mem_get_info(device)[0]


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy to the device without waiting for it: from pageable memory a GPU makes the host wait."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


@contextmanager
def memory_explained(advice: str) -> Iterator[None]:
    """Turn a device or a machine that runs out of memory into one line with what to do.

    Raises:
        InputError: in place of `torch.OutOfMemoryError`, and of what says the same of the machine.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        where = "the device" if isinstance(error, torch.OutOfMemoryError) else "this machine"
        raise InputError(f"out of memory on {where}: {advice}") from error


def is_out_of_memory(error: Exception) -> bool:
    """Whether a device or the machine has no memory left, for which PyTorch has no type of its own
    on a CPU."""
    of_cpu = isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    return of_cpu or isinstance(error, MemoryError | torch.OutOfMemoryError)


def describe(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads"
