"""The choice of device and precision."""

from __future__ import annotations

import pytest
import torch

from anomalyncd.errors import InputError
from anomalyncd.runtime import devices


@pytest.mark.parametrize(
    ("capabilities", "vendor", "chosen"),
    [
        ({"amx_tile": True, "avx512_bf16": True}, "GenuineIntel", torch.bfloat16),
        ({"amx_tile": False, "avx512_bf16": True}, "GenuineIntel", torch.float32),
        ({"amx_tile": False, "avx512_bf16": True}, "AuthenticAMD", torch.bfloat16),
        ({"amx_tile": False, "avx512_bf16": False}, "AuthenticAMD", torch.float32),
        ({"neon": True}, "", torch.float32),  # a processor that torch knows no AMX of
    ],
)
def test_a_cpu_computes_in_bfloat16_only_where_it_is_fast(
    capabilities: dict[str, bool],
    vendor: str,
    chosen: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    monkeypatch.setattr(devices, "processor", {"vendor_id": vendor}.get)
    assert devices.precision("auto", torch.device("cpu")) == chosen
    assert devices.precision("float32", torch.device("cpu")) == torch.float32


@pytest.mark.parametrize(("size", "fits"), [(0, True), (50, True), (51, False), (100, False)])
def test_half_of_what_a_gpu_has_free_is_left_to_computing(
    size: int, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def mem_get_info(device: torch.device) -> tuple[int, int]:
        asked.append(device)
        return 100, 1000

    monkeypatch.setattr(torch.cuda, "mem_get_info", mem_get_info)
    assert devices.has_room(torch.device("cuda:1"), size) == fits
    assert asked == [torch.device("cuda:1")]
    assert not devices.has_room(torch.device("cpu"), 0), "there it would be a second copy"


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
