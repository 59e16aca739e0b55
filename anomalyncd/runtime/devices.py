"""Choose the device and the precision."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from anomalyncd.errors import InputError


def choose(name: str) -> torch.device:
    """`auto` is a GPU if there is one; under torchrun, `auto` and `cuda` mean the process's own.

    Raises:
        InputError: the device is unknown or not usable.
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
    """The data type of the frozen blocks; `auto` is bfloat16 where it is natively supported.

    On CPUs that means AMX. With AVX-512 alone, bfloat16 is half as fast as float32 (measured: 73
    against 135 GFLOPS per core), so such a CPU uses float32.
    """
    if name != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = device.type == "cpu" and torch.cpu.get_capabilities().get("amx_tile", False)
    return torch.bfloat16 if native else torch.float32


def has_room(device: torch.device, size: int) -> bool:
    """Whether a GPU has twice `size` bytes free; always False for other devices."""
    return device.type == "cuda" and 2 * size <= torch.cuda.mem_get_info(device)[0]


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy to the device without waiting: without pinned memory the host would wait."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


@contextmanager
def memory_explained(advice: str) -> Iterator[None]:
    """Report that a device or the machine is out of memory in one line, with advice.

    Raises:
        InputError: instead of `torch.OutOfMemoryError`, or of an error about main memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        where = "the device" if isinstance(error, torch.OutOfMemoryError) else "this machine"
        raise InputError(f"out of memory on {where}: {advice}") from error


def is_out_of_memory(error: Exception) -> bool:
    """Whether a device or the machine has no memory left. On a CPU, PyTorch has no error type of
    its own for this."""
    of_cpu = isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    return of_cpu or isinstance(error, MemoryError | torch.OutOfMemoryError)


def describe(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads"
