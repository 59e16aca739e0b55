"""Compare each patch of an image with known-good photographs (PatchCore on the own backbone).

A patch is described by the frozen backbone at two depths, averaged over its neighbours, at two
sizes of the image: the larger finds small defects, the smaller sees more around each patch. The
patches of the known-good images are thinned to a memory bank for each size, or reduced to their
principal components (`comparison=subspace`). Then one image at a time is scored by these alone, in
a time that depends neither on the number of known-good images nor on that of the others. So they
score tomorrow's photographs too: `save` keeps them, `restore` brings them back.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from anomalyncd.config import MAX_SIDE, ReferenceDetectorConfig
from anomalyncd.detectors.reference.memory_bank import MemoryBank
from anomalyncd.detectors.reference.photographs import (
    KEY,
    decoded,
    evenly,
    image_sizes,
    require_weights,
    squeezed,
)
from anomalyncd.detectors.reference.smoothing import smooth_map
from anomalyncd.detectors.reference.subspace import Subspace
from anomalyncd.errors import InputError
from anomalyncd.models import patch_features
from anomalyncd.models.backbone import with_absolute_path
from anomalyncd.models.patch_features import PatchFeatures
from anomalyncd.runtime import console
from anomalyncd.storage import foreign
from anomalyncd.storage.tensors import save_tensors

log = logging.getLogger(__name__)

HEADER = "known_good"  # under which the file has what is not a tensor
_SHARES = (1.0, 0.5)  # of the image size: what is compared
_NEIGHBOURHOOD = 3  # patches whose features are averaged: as wide and high
_DIMENSIONS = 256  # that features are projected to at random, which keeps distances
_CANDIDATES = 40_000  # patches that a bank is selected from
_MOST_REFERENCES = 500  # known-good images that are read; of more, evenly spaced ones
_CALIBRATED = 32  # known-good images whose maps make the two sizes comparable
_SEED = 0


@dataclass(frozen=True)
class Scale:
    """What is known of good images at one size."""

    image_size: int
    features: PatchFeatures
    weight: Tensor  # (channels, dimensions), from features to what is compared
    bias: Tensor  # (dimensions,)
    normal: MemoryBank | Subspace
    peak: float  # median highest score of known-good images

    def anomaly_map(self, image: NDArray[np.uint8], map_size: int) -> NDArray[np.float32]:
        """(map_size, map_size), smoothed, not comparable between sizes yet."""
        patches, grid = _patches(self.features, image, self.image_size)
        scores = self.normal.scores(patches @ self.weight + self.bias)
        return smooth_map(scores, grid, map_size)


class KnownGood:
    """Known-good patches at each size, and how they score an image."""

    def __init__(self, config: ReferenceDetectorConfig, scales: Sequence[Scale]) -> None:
        self.config = config
        self.scales = scales

    @classmethod
    @torch.inference_mode()
    def learn(
        cls, config: ReferenceDetectorConfig, good: Sequence[Path], device: torch.device
    ) -> KnownGood:
        """Learn from known-good images.

        Raises:
            InputError: an image is unreadable, or the backbone cannot be used.
        """
        good = evenly(good, _MOST_REFERENCES)
        extractors = {
            size: patch_features.create(config.backbone, size, KEY, device)
            for size in image_sizes(config.backbone, good, _SHARES)
        }
        candidates = _draw_candidates(extractors, good)
        scales = [
            _select(config, features, size, candidates[size])
            for size, features in extractors.items()
        ]
        scales = _calibrate(scales, config.map_size, good)
        log.info(
            "maps: compared with %d known-good images at %s pixels",
            len(good),
            " and ".join(str(scale.image_size) for scale in scales),
        )
        return cls(config, scales)

    @torch.inference_mode()
    def anomaly_map(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(h, w, 3) RGB → (map_size, map_size), the mean over the sizes; about 1 in the most
        unusual place of a good image."""
        maps = [s.anomaly_map(image, self.config.map_size) / s.peak for s in self.scales]
        return np.mean(maps, axis=0, dtype=np.float32)

    def save(self, path: Path) -> None:
        """Write everything but the backbone's weights.

        Raises:
            InputError: the file cannot be written.
        """
        tensors: dict[str, Tensor] = {}
        for number, scale in enumerate(self.scales):
            own = {"weight": scale.weight, "bias": scale.bias, **vars(scale.normal)}
            tensors |= {f"{number}.{name}": tensor.float() for name, tensor in own.items()}
        header = {
            "config": asdict(
                replace(self.config, backbone=with_absolute_path(self.config.backbone))
            ),
            "weights_hash": self.scales[0].features.weights_hash,
            "image_sizes": [scale.image_size for scale in self.scales],
            "peaks": [scale.peak for scale in self.scales],
        }
        save_tensors(path, tensors, {HEADER: header})

    @classmethod
    def restore(
        cls, path: Path, tensors: dict[str, Tensor], header: Any, device: torch.device
    ) -> KnownGood:
        """Restore what `save` wrote.

        Args:
            path: the file, for messages.
            tensors: its tensors.
            header: what it has under HEADER.
            device: where to compute.

        Raises:
            InputError: the file is damaged or of another kind, or the backbone cannot be used.
        """
        stored = foreign.build(_Header, header, f"{path}: its header", complete=True)
        config = stored.config
        scales = []
        for number, (size, peak) in enumerate(zip(stored.image_sizes, stored.peaks, strict=True)):
            features = patch_features.create(config.backbone, size, KEY, device)
            require_weights(features, stored.weights_hash, config.backbone, path)
            shapes = _PROJECTION | _NORMAL[config.comparison]
            own = {name: tensors.pop(f"{number}.{name}", None) for name in shapes}
            kept = _checked(own, shapes, sum(features.channels), path)
            weight, bias = (kept.pop(name).to(device) for name in _PROJECTION)
            normal = _KINDS[config.comparison](**{k: t.to(device) for k, t in kept.items()})
            scales.append(Scale(size, features, weight, bias, normal, peak))
        if tensors:
            raise InputError(f"{path}: holds {sorted(tensors)[0]}, which is not expected")
        return cls(config, scales)


@dataclass
class _Header:
    config: ReferenceDetectorConfig
    weights_hash: str
    image_sizes: list[int]
    peaks: list[float]

    def __post_init__(self) -> None:
        sizes = all(0 < size <= MAX_SIDE for size in self.image_sizes)
        known = sizes and 0 < len(self.image_sizes) <= len(_SHARES)
        if not known or len(self.peaks) != len(self.image_sizes) or min(self.peaks) <= 0:
            raise InputError(f"sizes {self.image_sizes} with peaks {self.peaks}: out of range")


# Tensors of the file for each size, and their dimensions.
_PROJECTION = {"weight": 2, "bias": 1}
_NORMAL = {"nearest": {"patches": 2, "spacing": 1}, "subspace": {"basis": 2}}
_KINDS: dict[str, type[MemoryBank] | type[Subspace]] = {
    "nearest": MemoryBank,
    "subspace": Subspace,
}


def _checked(
    tensors: dict[str, Tensor | None], shapes: dict[str, int], channels: int, path: Path
) -> dict[str, Tensor]:
    """Tensors that fit each other and the backbone.

    Raises:
        InputError: they do not.
    """
    found = {}
    for name, dimensions in shapes.items():
        tensor = tensors[name]
        if tensor is None or tensor.ndim != dimensions or tensor.dtype != torch.float32:
            raise InputError(f"{path}: {name} is missing or of another kind; compute the run again")
        if not tensor.isfinite().all():
            raise InputError(f"{path}: {name} holds values that are not finite numbers")
        found[name] = tensor
    width = found["weight"].shape[1]
    vectors = found["patches" if "patches" in found else "basis"]
    spacing = found.get("spacing", torch.ones(len(vectors)))
    fits = (
        found["weight"].shape[0] == channels
        and found["bias"].shape == (width,)
        and len(vectors) > 0
        and vectors.shape[1] == width
        and spacing.shape == (len(vectors),)
        and bool((spacing > 0).all())
    )
    if not fits:
        raise InputError(f"{path}: its tensors do not fit each other; compute the run again")
    return found


def _draw_candidates(
    extractors: Mapping[int, PatchFeatures], good: Sequence[Path]
) -> dict[int, Tensor]:
    """For each image size (n, channels): patches drawn from all known-good images."""
    generators = {size: torch.Generator().manual_seed(_SEED) for size in extractors}
    share = math.ceil(_CANDIDATES / len(good))
    drawn: dict[int, list[Tensor]] = {size: [] for size in extractors}
    with console.steps("Maps: known-good photographs") as step:
        for done, image in enumerate(decoded(good), start=1):
            for size, features in extractors.items():
                found, _ = _patches(features, image, size)
                order = torch.randperm(len(found), generator=generators[size])
                drawn[size].append(found[order[:share]])
            step(done, len(good))
    return {size: torch.cat(patches) for size, patches in drawn.items()}


def _select(
    config: ReferenceDetectorConfig, features: PatchFeatures, size: int, candidates: Tensor
) -> Scale:
    """What is normal at one size, not calibrated yet."""
    weight, bias = _projection(candidates, features.channels)
    patches = candidates @ weight + bias
    normal: MemoryBank | Subspace
    if config.comparison == "subspace":
        normal = Subspace.of(patches, config.explained)
    else:
        normal = MemoryBank.of(patches, config.bank_size, config.neighbours)
    return Scale(size, features, weight, bias, normal, peak=1.0)


def _calibrate(scales: Sequence[Scale], map_size: int, good: Sequence[Path]) -> list[Scale]:
    """The same banks with their peaks."""
    peaks, calibrated = [], evenly(good, _CALIBRATED)
    with console.steps("Maps: scores of known-good photographs") as step:
        for done, image in enumerate(decoded(calibrated), start=1):
            peaks.append([float(s.anomaly_map(image, map_size).max()) for s in scales])
            step(done, len(calibrated))
    # Of equal images every score is 0.
    medians = np.maximum(np.median(peaks, axis=0), 1e-3)
    return [replace(scale, peak=float(peak)) for scale, peak in zip(scales, medians, strict=True)]


def _projection(candidates: Tensor, channels: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Centre the channels, let each depth weigh the same, and project to fewer dimensions.

    Returns:
        weight (channels, dimensions) and bias (dimensions,).
    """
    mean = candidates.mean(0)
    variances = candidates.var(0).split(list(channels))
    scale = torch.cat(
        [v.new_full(v.shape, float(v.sum().clamp(min=1e-12)) ** -0.5) for v in variances]
    )
    generator = torch.Generator().manual_seed(_SEED)
    total = sum(channels)
    square = torch.linalg.qr(torch.randn(total, total, generator=generator))[0].to(mean.device)
    kept = min(_DIMENSIONS, total)
    weight = scale[:, None] * square[:, :kept] * (total / kept) ** 0.5
    return weight, -mean @ weight


def _patches(
    features: PatchFeatures, image: NDArray[np.uint8], size: int
) -> tuple[Tensor, tuple[int, int]]:
    """(h · w, channels) of an image squeezed to a square, averaged over neighbours, and (h, w)."""
    return pooled(features(squeezed(image, size)))


def pooled(depths: Sequence[Tensor]) -> tuple[Tensor, tuple[int, int]]:
    """(1, channels, h, w) features of each depth → (h · w, all channels), averaged over
    neighbours, and (h, w)."""
    averaged = [
        F.avg_pool2d(depth.float(), _NEIGHBOURHOOD, 1, _NEIGHBOURHOOD // 2, count_include_pad=False)
        for depth in depths
    ]
    h, w = averaged[0].shape[-2:]
    return torch.cat(averaged, 1)[0].flatten(1).T, (h, w)
