"""Several processes that train one model together, started by torchrun.

Each computes its share of every batch. The features are then gathered in all processes: the losses
see the whole batch, and the result does not depend on the number of processes.
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
    """The rank of this process, and the number of processes."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def share(self, n: int) -> Tensor:
        """This process's rows of n: the same number in each process, the last row repeated."""
        each = -(-n // self.size)
        rows = torch.arange(self.rank * each, (self.rank + 1) * each)
        return rows.clamp_(max=n - 1)

    def gather(self, features: Tensor, n: int) -> Tensor:
        """Gather the shares of all processes: (share, ...) → (n, ...), with gradients."""
        if self.size == 1:
            return features
        return torch.cat(all_gather(features.contiguous()))[:n]

    def gather_views(self, features: Tensor, n: int) -> Tensor:
        """Two views of this process's share of n regions, (2 · share, width) → those of all of
        them, (2n, width), view 1 of all regions first; with gradients."""
        if self.size == 1:
            return features
        by_region = features.unflatten(0, (2, -1)).transpose(0, 1)
        return self.gather(by_region, n).transpose(0, 1).flatten(0, 1)

    def collect(self, rows: Tensor) -> list[Tensor]:
        """The tensors of all processes, which may differ in their number of rows; no gradients."""
        if self.size == 1:
            return [rows]
        own = torch.tensor([len(rows)], device=rows.device)
        lengths = [torch.empty_like(own) for _ in range(self.size)]
        dist.all_gather(lengths, own)
        padded = rows.new_zeros(max(map(int, lengths)), *rows.shape[1:])
        padded[: len(rows)] = rows
        found = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(found, padded)
        return [part[: int(length)] for part, length in zip(found, lengths, strict=True)]

    def average_gradients(self, model: nn.Module) -> None:
        """Replace the gradients of all processes by their mean.

        Every process computes the loss of the whole batch. So gradients of layers after the gather
        are equal in all of them, and the backward pass of the gather sums those of layers before
        it: averaging makes both correct.
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
    """This process among those started by torchrun; `World()` without torchrun.

    torchrun's environment variables are removed: otherwise lightning would wait for the other
    processes when the first one trains a detector.
    """
    rank, size = (int(os.environ.pop(key, default)) for key, default in _TORCHRUN.items())
    os.environ.pop("TORCHELASTIC_RUN_ID", None)
    return World(rank, size)


@contextmanager
def together(world: World, device: torch.device) -> Iterator[None]:
    """Wait until all processes are here; they can exchange tensors inside this context."""
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
