"""A memory bank of normal patches: drawn evenly, searched for the nearest (PatchCore, 2106.08265).

Distances are divided by how widely the bank is spaced around the patch that was found. So a patch
in a varied part of the product, where normal patches lie far from each other, needs a larger
distance to stand out than one in a uniform part.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_PROJECTED = 64  # dimensions that the selection works in
_QUERIES = 4096  # searched at once
_SEED = 0  # of projections: the same patches always give the same bank


def coreset(patches: Tensor, size: int) -> Tensor:
    """Patches that lie far from each other: each is the one farthest from those before it.

    Args:
        patches: (n, d).
        size: how many to select.

    Returns:
        (min(n, size),) int64 indices, in the order of selection. The selection works on a random
        projection, as PatchCore's.
    """
    n, d = patches.shape
    generator = torch.Generator().manual_seed(_SEED)
    if d > _PROJECTED:
        patches = patches @ (torch.randn(d, _PROJECTED, generator=generator) / _PROJECTED**0.5)
    squares = patches.pow(2).sum(1)
    nearest = torch.full((n,), torch.inf)
    selected = torch.empty(min(n, size), dtype=torch.int64)
    current = 0
    for place in range(len(selected)):
        selected[place] = current
        distance = squares + squares[current] - 2 * patches @ patches[current]
        distance[current] = -torch.inf  # never twice, not even among equal patches
        nearest = torch.minimum(nearest, distance)
        current = int(nearest.argmax())
    return selected


@dataclass(frozen=True)
class MemoryBank:
    """Normal patches, and how widely they are spaced."""

    patches: Tensor  # (n, d)
    spacing: Tensor  # (n,) > 0, mean distance to the nearest others

    @classmethod
    def of(cls, patches: Tensor, size: int, neighbours: int) -> MemoryBank:
        """Select a bank.

        Args:
            patches: (n, d) of normal images, n ≥ 2.
            size: patches to keep.
            neighbours: others whose distance is averaged for the spacing.
        """
        kept = patches[coreset(patches, size)]
        count = min(neighbours + 1, len(kept))
        distances = _distances(kept, kept).topk(count, largest=False).values[:, 1:]
        spacing = distances.mean(1)
        # Equal images give equal patches; a spacing of nothing would make any distance infinite.
        return cls(kept, spacing.clamp(min=max(0.1 * float(spacing.mean()), 1e-6)))

    def scores(self, patches: Tensor) -> Tensor:
        """(n, d) patches → (n,) distance to the nearest in the bank, in units of its spacing."""
        found = []
        squares = self.patches.pow(2).sum(1)
        for start in range(0, len(patches), _QUERIES):  # split() cannot be exported to ONNX
            part = patches[start : start + _QUERIES]
            # What all distances of a patch share is added to the nearest only.
            rest, place = torch.addmm(squares, part, self.patches.T, alpha=-2).min(1)
            distance = (rest + part.pow(2).sum(1)).clamp(min=0).sqrt()
            found.append(distance / self.spacing[place])
        return torch.cat(found)


def _distances(a: Tensor, b: Tensor) -> Tensor:
    """(n, d), (m, d) → (n, m) Euclidean distances."""
    squares = a.pow(2).sum(1)[:, None] + b.pow(2).sum(1) - 2 * a @ b.T
    return squares.clamp(min=0).sqrt()
