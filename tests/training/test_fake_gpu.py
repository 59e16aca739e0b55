"""A training step on a GPU, as far as it can be shown without one.

Tensors on the GPU are fake: they have a device, a shape and a type, but no values. What makes the
host wait for the GPU fails: asking for a value, copying back, copying there from memory that is not
pinned; and so does mixing tensors of two devices. Gradients need a real device and are made up.
"""

from __future__ import annotations

from collections.abc import Iterator
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

from anomalyncd.config import TrainConfig
from anomalyncd.runtime import devices
from anomalyncd.runtime.distributed import ALONE
from anomalyncd.training import objective, sampling, schedule, train
from anomalyncd.training.cached_features import CachedFeatures
from anomalyncd.training.online_features import OnlineFeatures
from anomalyncd.training.training_set import Pixels, Targets
from tests.helpers.training import small_model, training_set

GPU = torch.device("cuda")


class Waiting(Exception):
    """The host would have waited for the GPU."""


def leaves(value: Any) -> Iterator[Any]:
    """All values in a call's arguments, also inside lists and dictionaries."""
    if isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from leaves(part)
    else:
        yield value


class FakeGpu(FakeTensorMode):
    """Fake is only what lies on the GPU; the host computes as always."""

    def __init__(self) -> None:
        super().__init__(allow_non_fake_inputs=True)
        self.pinned: list[torch.Tensor] = []
        self.setting_up = True

    def pin(self, tensor: torch.Tensor) -> torch.Tensor:
        self.pinned.append(tensor)
        return tensor

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        on_gpu = any(
            isinstance(leaf, FakeTensor) or (isinstance(leaf, torch.device) and leaf.type == "cuda")
            for leaf in leaves((args, kwargs))
        )
        if not on_gpu:
            return func(*args, **kwargs)
        if func is torch.ops.aten._to_copy.default and not self.setting_up:
            back = torch.device(kwargs.get("device", "cuda")).type == "cpu"
            there = args[0].device.type == "cpu"
            if back or (there and not any(args[0] is tensor for tensor in self.pinned)):
                raise Waiting
        return super().__torch_dispatch__(func, types, args, kwargs)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    mode = FakeGpu()
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: mode.pin(tensor))
    return mode


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("source", ["online", "cached"])
def test_a_step_never_waits_for_the_gpu(
    source: str, resident: bool, gpu: FakeGpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "has_room", lambda device, size: resident)
    data, model, config = training_set(), small_model(), TrainConfig(batch_size=8)
    views: OnlineFeatures | CachedFeatures
    if source == "cached":
        views = CachedFeatures.fill(model, data, 3, 0, tmp_path / "features", fingerprint="")
    stream = torch.Generator().manual_seed(0)
    orders = sampling.draw_batches(data.n_base, len(data.novel), config.batch_size, stream)
    order = next(orders).sort().values

    def made_up(loss: torch.Tensor) -> None:
        for _, p in model.trainable():
            p.grad = torch.zeros_like(p)

    monkeypatch.setattr(torch.Tensor, "backward", made_up)
    with gpu:
        model.to(GPU)
        optimizer = schedule.make_optimizer(model, config)
        targets = Targets(data, GPU)
        if source == "online":
            views = OnlineFeatures(model, Pixels(data, GPU), ALONE)
        elif resident:
            views.tokens = views.tokens.to(GPU)
        gpu.setting_up = False
        features = views.class_tokens(order, stream)
        terms = train.step(model, optimizer, features, targets.batch(order), config, epoch=0)
    assert (features.device.type, features.shape) == ("cuda", (16, 24))
    assert (terms.device.type, terms.shape) == ("cuda", (len(objective.TERMS) + 2,))


@pytest.mark.parametrize(
    "wait",
    [
        torch.Tensor.item,
        torch.nonzero,
        lambda x: x[x > 0],
        torch.Tensor.cpu,
        lambda x: x + torch.ones(3).to(GPU, non_blocking=True),  # not pinned
    ],
)
def test_waiting_for_the_gpu_is_detected(wait: Any, gpu: FakeGpu) -> None:
    with gpu:
        x = torch.ones((), device=GPU)
        gpu.setting_up = False
        with pytest.raises((DataDependentOutputException, DynamicOutputShapeException, Waiting)):
            wait(x)


def test_mixed_devices_are_detected(gpu: FakeGpu) -> None:
    with gpu, pytest.raises(RuntimeError, match="two devices"):
        torch.ones(3, device=GPU) + torch.ones(3)
