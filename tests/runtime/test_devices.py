"""Where and in which numbers to compute."""

from __future__ import annotations

import pytest
import torch

from anomalyncd.errors import InputError
from anomalyncd.runtime import devices


@pytest.mark.parametrize(
    ("capabilities", "chosen"),
    [
        ({"amx_tile": True, "avx512_bf16": True}, torch.bfloat16),
        ({"amx_tile": False, "avx512_bf16": True}, torch.float32),
        ({"neon": True}, torch.float32),  # a processor that torch knows no AMX of
    ],
)
def test_a_cpu_computes_in_bfloat16_only_with_amx(
    capabilities: dict[str, bool], chosen: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert devices.precision("auto", torch.device("cpu")) == chosen
    assert devices.precision("float32", torch.device("cpu")) == torch.float32


@pytest.mark.parametrize(
    ("error", "where"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), "the device"),
        (MemoryError("Unable to allocate 20.0 GiB"), "this machine"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "this machine"),
    ],
)
def test_too_little_memory_is_one_line_with_what_to_do(error: Exception, where: str) -> None:
    with (
        pytest.raises(InputError, match=f"^out of memory on {where}: lower it$"),
        devices.memory_explained("lower it"),
    ):
        raise error
    with pytest.raises(RuntimeError, match="shapes"), devices.memory_explained("lower it"):
        raise RuntimeError("shapes do not fit")
