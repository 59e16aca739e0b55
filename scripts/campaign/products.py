"""Tiny products that the campaign works on, and the settings for runs of a second."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

IMAGES, KINDS = 4, ("good", "dent", "stripe")  # images per class, classes
HEIGHT, WIDTH = 48, 64

SMALL = (
    *("backbone=embedded", "backbone.image_size=32", "train.epochs=4", "train.hidden=16"),
    *("train.bottleneck=8", "train.heads=2", "tracker=none", "quiet=true", "device=cpu"),
)


@dataclass(frozen=True)
class Product:
    """Images, and what a run of them is called with."""

    root: Path  # holds photos, maps, defects and new

    @property
    def photos(self) -> Path:
        return self.root / "photos"

    @property
    def maps(self) -> Path:
        return self.root / "maps"

    def settings(self) -> tuple[str, ...]:
        """A run on maps from files, without a base set."""
        return (
            *("dataset=folder", f"dataset.path={self.photos}", "base=none"),
            *(f"detector.path={self.maps}", *SMALL),
        )

    def with_base(self) -> tuple[str, ...]:
        """Settings that add the labelled base set."""
        return ("base=folder", f"base.path={self.root / 'defects'}")

    def prediction(self, run: Path) -> tuple[str, ...]:
        """Settings of predict.py."""
        return (f"run={run}", f"path={self.root / 'new'}", f"detector.path={self.maps}")


def draw(root: Path, seed: int = 0) -> Product:
    """Photographs in class folders, their maps, a base set with masks, and new images."""
    rng = np.random.default_rng(seed)
    for kind in KINDS:
        for number in range(IMAGES):
            image, mask = _photograph(kind, rng)
            scores = np.where(mask, 200 + number, rng.integers(0, 20, mask.shape)).astype(np.uint8)
            save(root / "photos" / kind / f"{number}.png", image)
            save(root / "maps" / "photos" / kind / f"{number}.png", scores)
    for kind in ("hole", "scratch"):
        for number in range(3):
            image, mask = _photograph("dent" if kind == "hole" else "stripe", rng)
            save(root / "defects" / "images" / kind / f"{number}.png", image[::-1])
            save(root / "defects" / "masks" / kind / f"{number}.png", mask[::-1] * np.uint8(255))
    for number in range(2):
        image, mask = _photograph("dent", rng)
        save(root / "new" / f"{number}.png", image)
        save(root / "maps" / "new" / f"{number}.png", mask * np.uint8(210))
    return Product(root)


def save(path: Path, pixels: NDArray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def _photograph(kind: str, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    image = rng.integers(80, 100, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    x = int(rng.integers(4, WIDTH - 28))
    if kind == "dent":
        mask[12:30, x : x + 18] = True
    elif kind == "stripe":
        mask[6:40, x : x + 8] = True
    image[mask] = (230, 220, 40) if kind == "dent" else (30, 20, 180)
    return image, mask
