"""The choice of device and precision."""

from __future__ import annotations

import pytest
import torch

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
