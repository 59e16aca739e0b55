"""Which regions a batch holds: drawn with replacement, base and novel ones with equal mass."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor


def draw_batches(
    n_base: int, n_novel: int, batch_size: int, generator: torch.Generator
) -> Iterator[Tensor]:
    """Draw n_base + n_novel regions with replacement, both kinds with equal total mass.

    Yields:
        (≤ batch_size,) indices, base regions first in the numbering. With a base set, a batch of
        one kind only is left out, as in the release.
    """
    mass = torch.ones(n_base + n_novel, dtype=torch.float64)
    if n_base:
        mass[:n_base] /= n_base
        mass[n_base:] /= n_novel
    drawn = torch.multinomial(mass, len(mass), replacement=True, generator=generator)
    for batch in drawn.split(batch_size):
        if n_base == 0 or 0 < int((batch < n_base).sum()) < len(batch):
            yield batch


def epoch_seed(seed: int, epoch: int) -> int:
    """Seed of an epoch's own random numbers: a resumed run draws what an uninterrupted one does."""
    return int(np.random.SeedSequence((seed, epoch)).generate_state(1, np.uint64)[0] >> 1)
