"""Several processes that train one model together, started by torchrun.

Each does its share of every batch; then all hold all features, so that the losses see the whole
batch and what is learned does not depend on how many processes there are.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_gather

_TORCHRUN = {"RANK": "0", "WORLD_SIZE": "1"}
_PATIENCE = timedelta(days=1)  # while the first process makes maps and regions


@dataclass(frozen=True)
class World:
    """This process among all."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def share(self, n: int) -> Tensor:
        """The rows of n that this process works on: equally many in each, the last row repeated."""
        each = -(-n // self.size)
        rows = torch.arange(self.rank * each, (self.rank + 1) * each)
        return rows.clamp_(max=n - 1)

    def gather(self, features: Tensor, n: int) -> Tensor:
        """Put the shares of all processes together: (share, ...) → (n, ...), with gradients."""
        if self.size == 1:
            return features
        return torch.cat(all_gather(features.contiguous()))[:n]

    def average_gradients(self, model: nn.Module) -> None:
        """Make all processes' gradients their mean.

        Every process computes the whole batch's loss. So gradients after the gathering are equal
        in all of them, and gathering sums up those before it: both are right after averaging.
        """
        if self.size == 1:
            return
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        flat /= self.size
        for gradient, part in zip(
            gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True
        ):
            gradient.copy_(part.view_as(gradient))


ALONE = World()


@cache
def started() -> World:
    """This process among those that torchrun has started; alone without it.

    The variables that say so are taken away: else lightning, when the first process trains a
    detector, would look for the others.
    """
    rank, size = (int(os.environ.pop(key, default)) for key, default in _TORCHRUN.items())
    os.environ.pop("TORCHELASTIC_RUN_ID", None)
    return World(rank, size)


@contextmanager
def together(world: World, device: torch.device) -> Iterator[None]:
    """Wait for all processes to come here, and let them exchange tensors meanwhile."""
    if world.size == 1:
        yield
        return
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        rank=world.rank,
        world_size=world.size,
        timeout=_PATIENCE,
    )
    try:
        yield
    finally:
        dist.destroy_process_group()
