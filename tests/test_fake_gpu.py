"""A training step on a GPU, as far as it can be shown without one.

Tensors on the GPU are fake: they have a place, a shape and a type, but no values. So whatever makes
the host wait for a value, or mixes tensors of two places, fails. Gradients need a real device.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
)
from torch.utils._pytree import tree_leaves

from anomalyncd import devices, fit
from anomalyncd.bank import Bank
from anomalyncd.config import FitConfig
from anomalyncd.distributed import ALONE
from anomalyncd.exact import FreshViews
from anomalyncd.training_set import Pixels, Targets
from tests.test_fit import small_model, training_set

GPU = torch.device("cuda")


class FakeGpu(FakeTensorMode):
    """Fake is only what lies on the GPU; the host computes as always."""

    def __init__(self) -> None:
        super().__init__(allow_non_fake_inputs=True)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        on_gpu = any(
            isinstance(leaf, FakeTensor) or (isinstance(leaf, torch.device) and leaf.type == "cuda")
            for leaf in tree_leaves((args, kwargs))
        )
        dispatch = super().__torch_dispatch__
        return dispatch(func, types, args, kwargs) if on_gpu else func(*args, **kwargs)


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("trunk", ["exact", "bank"])
def test_a_step_never_waits_for_the_gpu(
    trunk: str, resident: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "has_room", lambda device, size: resident)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)  # needs a driver
    data, model, config = training_set(), small_model(), FitConfig(batch_size=8)
    views: FreshViews | Bank
    if trunk == "bank":
        views = Bank.fill(model, data, 3, 0, tmp_path / "bank", fingerprint="")
    stream = torch.Generator().manual_seed(0)
    orders = fit.draw_batches(data.n_base, len(data.novel), config.batch_size, stream)
    order = next(orders).sort().values
    with FakeGpu():
        model.to(GPU)
        if trunk == "exact":
            views = FreshViews(model, Pixels(data, GPU), ALONE)
        elif resident:
            views.tokens = views.tokens.to(GPU)
        features = views.class_tokens(order, stream)
        terms = fit.objective(model, features, Targets(data, GPU).batch(order), config, epoch=0)
    assert (features.device.type, features.shape) == ("cuda", (16, 24))
    assert (terms.device.type, terms.shape) == ("cuda", (len(fit.TERMS) + 2,))


@pytest.mark.parametrize("waiting", [torch.Tensor.item, torch.nonzero, lambda x: x[x > 0]])
def test_waiting_for_the_gpu_would_be_seen(waiting: Any) -> None:
    with (
        FakeGpu(),
        pytest.raises((DataDependentOutputException, DynamicOutputShapeException)),
    ):
        waiting(torch.ones((), device=GPU))


def test_mixed_places_would_be_seen() -> None:
    with FakeGpu(), pytest.raises(RuntimeError, match="two devices"):
        torch.ones(3, device=GPU) + torch.ones(3)
