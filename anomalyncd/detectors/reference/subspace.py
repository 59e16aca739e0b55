"""The subspace of normal patches: what principal components leave unexplained (SubspaceAD).

Much cheaper than a memory bank, and as good where a product always looks the same
(arXiv 2602.23013).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Subspace:
    """Principal directions of normal patches."""

    basis: Tensor  # (k, d), orthonormal rows

    @classmethod
    def of(cls, patches: Tensor, explained: float) -> Subspace:
        """Keep the fewest directions that explain a share of the variance.

        Args:
            patches: (n, d) of normal images, with mean 0.
            explained: the share, above 0 and below 1.
        """
        variances, directions = torch.linalg.eigh(patches.double().T @ patches.double())
        shares = (variances.flip(0).cumsum(0) / variances.sum()).cpu()
        kept = int((shares < explained).sum()) + 1
        return cls(directions.flip(1)[:, :kept].T.to(patches).contiguous())

    def scores(self, patches: Tensor) -> Tensor:
        """(n, d) patches → (n,) length of what the subspace does not explain."""
        return (patches - patches @ self.basis.T @ self.basis).norm(dim=1)
