"""A drawn product with one red square on most images, cut around its maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anomalyncd.config import MebinConfig, RegionsConfig
from anomalyncd.detectors import map_store
from anomalyncd.detectors.files import FilesDetector
from anomalyncd.regions import cropping
from anomalyncd.storage.cache import Cache
from anomalyncd.types import Dataset, Sample


def save(path: Path, pixels: NDArray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def product(root: Path, n: int = 4, size: tuple[int, int] = (120, 160)) -> Dataset:
    """Grey images with one red square each, and maps that are bright there; the last is clean."""
    height, width = size
    samples = []
    for i in range(n):
        image = np.full((height, width, 3), 90, np.uint8)
        scores = np.full((height // 2, width // 2), 20, np.uint8)
        if i < n - 1:
            y, x = 20 + 5 * i, 30 + 10 * i
            image[y : y + 24, x : x + 24] = (220, 0, 0)
            scores[y // 2 : y // 2 + 12, x // 2 : x // 2 + 12] = 200 + i
        samples.append(Sample(f"t/{i}", save(root / "images" / f"{i}.png", image)))
        save(root / "maps" / "t" / f"{i}.png", scores)
    return Dataset(tuple(samples), None)


def stored_maps(root: Path, dataset: Dataset) -> map_store.StoredMaps:
    detector = FilesDetector(str(root / "maps"), "c")
    return map_store.collect(detector, dataset, "c", Cache(root / "cache"), settings={})


def cut(root: Path, dataset: Dataset, **regions: object) -> cropping.Cropped:
    stored, config = stored_maps(root, dataset), RegionsConfig(**regions)
    cache = Cache(root / "cache")
    return cropping.crop_novel(dataset.samples, stored, MebinConfig(), config, 56, cache)
