"""A finished run with a tiny untrained network, without training one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from anomalyncd.config import (
    AttentionConfig,
    BackboneConfig,
    FusionConfig,
    MebinConfig,
    RegionsConfig,
    TrainConfig,
)
from anomalyncd.models import backbone, checkpoint, model

TINY = BackboneConfig("vit_tiny_patch16_224", pretrained=False, image_size=32)
NAMES = ("good", "dent", "class 2")


def finished_run(folder: Path, precision: str = "float32", names: tuple[str, ...] = NAMES) -> Path:
    """The folder of a run of 8-bit maps."""
    folder.mkdir(parents=True, exist_ok=True)
    train = TrainConfig(
        hidden=8, bottleneck=4, heads=2, student_temperature=0.02, precision=precision
    )
    torch.manual_seed(0)
    stock = backbone.build(TINY)
    network = model.build(stock, AttentionConfig(), train, n_base=1, n_novel=len(names))
    metadata = checkpoint.ModelMetadata(
        backbone=TINY,
        backbone_source=stock.source,
        attention=AttentionConfig(),
        mebin=MebinConfig(erosion=0, search_range=[0.0, 255.0]),
        regions=RegionsConfig(),
        fusion=FusionConfig(),
        train=train,
        raw_range=None,
        head=1,
        base_classes=("cut",),
        class_names=names,
        frozen_hash=checkpoint.frozen_hash(stock),
    )
    checkpoint.save_model(folder / "model.safetensors", network, metadata)
    return folder


def draw_photographs(folder: Path, n: int) -> Path:
    """`folder/photos` with n noisy photographs, and `folder/maps`: no, one or two defects each."""
    for i in range(n):
        draw_photograph(folder, f"{i:04}", i)
    return folder / "photos"


def draw_photograph(folder: Path, name: str, seed: int) -> None:
    """One photograph, and its map."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 120, (48, 64, 3)).astype(np.uint8)
    scores = np.full((48, 64), 10, np.uint8)
    for _ in range(seed % 3):
        y, x = rng.integers(0, 30), rng.integers(0, 44)
        image[y : y + 14, x : x + 14] //= 2
        image[y : y + 14, x : x + 14] += rng.integers(40, 120, 3).astype(np.uint8)
        scores[y : y + 14, x : x + 14] = 220
    for kind, pixels in (("photos", image), ("maps", scores)):
        path = folder / kind / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
