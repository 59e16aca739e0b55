"""A network and regions small enough to train in a test."""

from __future__ import annotations

import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer

from anomalyncd.models.heads import Heads
from anomalyncd.models.mask_guided_vit import MaskGuidedViT
from anomalyncd.models.model import Model
from anomalyncd.training.training_set import TrainingSet
from anomalyncd.types import Regions

CPU = torch.device("cpu")


def small_model(n_base: int = 2, n_novel: int = 3) -> Model:
    torch.manual_seed(0)
    vit = VisionTransformer(
        img_size=32, patch_size=8, embed_dim=24, depth=3, num_heads=3, num_classes=0
    )
    heads = Heads(24, n_base + n_novel, n_heads=2, hidden=16, bottleneck=8)
    half = (0.5, 0.5, 0.5)
    return Model(MaskGuidedViT(vit, 2), heads, n_base=n_base, mean=half, std=half)


def drawn_regions(n: int, seed: int, side: int = 37) -> Regions:
    rng = np.random.default_rng(seed)
    return Regions(
        images=rng.integers(0, 256, (n, side, side, 3), np.uint8),
        masks=rng.integers(0, 2, (n, side, side), np.uint8) * np.uint8(255),
        image_index=np.arange(n),
        boxes=np.tile([0, 0, side, side], (n, 1)),
        areas=np.full(n, 9),
        scores=rng.uniform(0, 1, n),
        image_sizes=np.tile([side, side], (n, 1)),
    )


def training_set(seed: int = 0) -> TrainingSet:
    return TrainingSet(drawn_regions(9, seed), drawn_regions(7, seed + 1), np.arange(7) % 2)
