"""Reading photographs for comparison: sizes, decoding, even choice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from anomalyncd.config import BackboneConfig
from anomalyncd.data.images import read_header, read_image
from anomalyncd.errors import InputError
from anomalyncd.models import patch_features
from anomalyncd.models.patch_features import PatchFeatures

KEY = "detector.backbone"  # the backbone's key in the configuration
_DECODED = 8  # images that wait, decoded


def image_sizes(
    config: BackboneConfig, photographs: Sequence[Path], shares: Sequence[float]
) -> list[int]:
    """Shares of the backbone's image size, as multiples of its patch, in pixels.

    Photographs are not enlarged: the whole is at most the longer side of half of them.
    """
    patch = patch_features.patch_size(config, KEY)
    sides = sorted(max(header.width, header.height) for header in map(read_header, photographs))
    largest = min(config.image_size, sides[len(sides) // 2])
    sizes = (max(2, round(largest * share / patch)) * patch for share in shares)
    return list(dict.fromkeys(sizes))


def squeezed(image: NDArray[np.uint8], size: int) -> Tensor:
    """(h, w, 3) RGB → (1, 3, size, size) in [0, 1]."""
    square = Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(square)).permute(2, 0, 1)[None] / 255


def decoded(paths: Sequence[Path]) -> Iterator[NDArray[np.uint8]]:
    """Images in order, decoded on threads, only a few at a time."""
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(paths), _DECODED):
            yield from pool.map(read_image, paths[start : start + _DECODED])


def evenly(paths: Sequence[Path], most: int) -> Sequence[Path]:
    """At most so many, from everywhere."""
    if len(paths) <= most:
        return paths
    return [paths[i * len(paths) // most] for i in range(most)]


def require_weights(
    features: PatchFeatures, expected: str, config: BackboneConfig, path: Path
) -> None:
    """Check that a backbone still has the weights that a kept file was learned with.

    Raises:
        InputError: it has others.
    """
    if features.weights_hash != expected:
        raise InputError(
            f"{config.checkpoint or config.name}: its weights are not those that {path} was "
            "learned with; restore them, or compute the run again"
        )
