"""Choose the device and the precision."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from anomalyncd.errors import InputError

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


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

    On CPUs that means AMX, or AMD's with AVX512-BF16 (twice as fast as float32 there: 194 to 221
    against 83 to 101 GFLOPS per core of an EPYC). Intel's with AVX512-BF16 but without AMX use
    float32: bfloat16 is half as fast there (73 against 135). The choice depends on the processor
    alone, so the same machine always makes the same.
    """
    if name != "auto":
        return PRECISIONS[name]
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = device.type == "cpu" and _has_fast_bfloat16()
    return torch.bfloat16 if native else torch.float32


def _has_fast_bfloat16() -> bool:
    known = torch.cpu.get_capabilities()
    of_amd = "AuthenticAMD" in (processor("vendor_id") or platform.processor())
    return known.get("amx_tile", False) or (of_amd and known.get("avx512_bf16", False))


def processor(entry: str) -> str:
    """What Linux says of the first processor, such as its `model name`; empty if it does not."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    pairs = (line.partition(":") for line in lines)
    return next((value.strip() for name, _, value in pairs if name.strip() == entry), "")


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
