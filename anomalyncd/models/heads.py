"""Projector and cosine classifiers on the class token (as in the release)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Heads(nn.Module):
    """A projector for the contrastive losses and `n_heads` independent cosine classifiers.

    Several classifiers start from different weights; the one that fits the novel regions best is
    used in the end.
    """

    def __init__(
        self,
        width: int,
        n_classes: int,
        *,
        n_heads: int = 4,
        hidden: int = 2048,
        bottleneck: int = 256,
    ) -> None:
        super().__init__()
        self.projector = nn.Sequential(
            nn.Linear(width, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, bottleneck),
        )
        for layer in self.projector:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        bound = width**-0.5  # as torch's Linear starts
        self.prototypes = nn.Parameter(torch.empty(n_heads, n_classes, width))
        nn.init.uniform_(self.prototypes, -bound, bound)

    def project(self, features: Tensor) -> Tensor:
        """(n, width) class tokens → (n, bottleneck), not yet of unit length."""
        return self.projector(features)

    def classify(self, features: Tensor) -> Tensor:
        """(n, width) class tokens → (n_heads, n, n_classes) cosines."""
        # h, k = head, class; n, d = region, width
        return torch.einsum(
            "nd,hkd->hnk", F.normalize(features, dim=-1), F.normalize(self.prototypes, dim=-1)
        )
