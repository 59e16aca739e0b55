"""Compare each patch of an image with known-good photographs (PatchCore on the own backbone).

A patch is described by the frozen backbone at two depths, averaged over its neighbours, at two
sizes of the image: the larger finds small defects, the smaller sees more around each patch. The
patches of the known-good images are thinned to a memory bank for each size. Then one image at a
time is scored by these banks alone, in a time that depends neither on the number of known-good
images nor on that of the others. So the same banks score tomorrow's photographs: `save` keeps
them, `load` restores them.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from anomalyncd.config import MAX_SIDE, ReferenceDetectorConfig
from anomalyncd.data.images import read_header, read_image
from anomalyncd.detectors.memory_bank import MemoryBank
from anomalyncd.errors import InputError
from anomalyncd.models import patch_features
from anomalyncd.models.patch_features import PatchFeatures
from anomalyncd.runtime import console
from anomalyncd.storage import foreign
from anomalyncd.storage.cache import digest_files
from anomalyncd.storage.identity import weights_file
from anomalyncd.storage.tensors import load_tensors, save_tensors
from anomalyncd.types import Dataset

log = logging.getLogger(__name__)

VERSION = 1  # part of the cache key: raise it when maps change
_BACKBONE = "detector.backbone"  # its key
_SHARES = (1.0, 0.5)  # of the image size: what is compared
_NEIGHBOURHOOD = 3  # patches whose features are averaged: as wide and high
_DIMENSIONS = 256  # that features are projected to at random, which keeps distances
_CANDIDATES = 40_000  # patches that a bank is selected from
_MOST_REFERENCES = 500  # known-good images that are read; of more, evenly spaced ones
_CALIBRATED = 32  # known-good images whose maps make the two sizes comparable
_SEED = 0
_DECODED = 8  # images that wait, decoded


class ReferenceDetector:
    """Learns from the known-good images of a dataset, and scores the others.

    Args:
        config: backbone, sizes and bank.
        device: where the network and the search run.
    """

    def __init__(self, config: ReferenceDetectorConfig, device: torch.device) -> None:
        self.config = config
        self.device = device
        self._reference: Reference | None = None

    def key(self, dataset: Dataset) -> Any:
        settings = asdict(self.config)
        if weights := weights_file(self.config.backbone, _BACKBONE):
            settings["backbone"]["checkpoint"] = digest_files([weights])
        return VERSION, settings, self.device.type, torch.__version__, PIL.__version__

    def maps(self, dataset: Dataset) -> Iterator[NDArray]:
        """One (map_size, map_size) float32 map per image, ≥ 0, comparable between images.

        Raises:
            InputError: no known-good images, an unreadable image, or an unusable backbone.
        """
        if not dataset.train:
            raise InputError(
                "detector=reference compares with known-good photographs, and there are none; set "
                "dataset.good=FOLDER, or use detector=musc_embedded, which needs none"
            )
        self._reference = Reference.learn(self.config, dataset.train, self.device)
        paths = [sample.image for sample in dataset.samples]
        yield from self._reference.maps(paths)

    def save(self, path: Path) -> None:
        """Keep what `maps` has learned, for images to come."""
        assert self._reference is not None, "maps() comes first"
        self._reference.save(path)


class LearnedReference:
    """A detector that has learned already: the file of a finished run.

    Raises:
        InputError: the file is not one of these, or does not fit its backbone.
    """

    def __init__(self, path: Path, device: torch.device) -> None:
        self._path = path
        self._reference = Reference.load(path, device)

    def key(self, dataset: Dataset) -> Any:
        return VERSION, digest_files([self._path])

    def maps(self, dataset: Dataset) -> Iterator[NDArray]:
        """As `ReferenceDetector.maps`."""
        yield from self._reference.maps([sample.image for sample in dataset.samples])


@dataclass(frozen=True)
class _Scale:
    """What is known of good images at one size."""

    image_size: int
    features: PatchFeatures
    weight: Tensor  # (channels, dimensions), from features to what the bank holds
    bias: Tensor  # (dimensions,)
    bank: MemoryBank
    peak: float  # median highest score of known-good images

    def anomaly_map(self, image: NDArray[np.uint8], map_size: int) -> NDArray[np.float32]:
        """(map_size, map_size), smoothed, in units of the bank's spacing."""
        patches, grid = _patches(self.features, image, self.image_size)
        scores = self.bank.scores(patches @ self.weight + self.bias).view(1, 1, *grid).float()
        enlarged = F.interpolate(scores, (map_size, map_size), mode="bilinear")[0, 0].cpu().numpy()
        # As PatchCore: 4 pixels at 224.
        return cv2.GaussianBlur(enlarged, (0, 0), map_size / 56).astype(np.float32)


class Reference:
    """Known-good patches at each size, and how they score an image."""

    def __init__(self, config: ReferenceDetectorConfig, scales: Sequence[_Scale]) -> None:
        self.config = config
        self._scales = scales

    @classmethod
    @torch.inference_mode()
    def learn(
        cls, config: ReferenceDetectorConfig, good: Sequence[Path], device: torch.device
    ) -> Reference:
        """Select the banks from known-good images.

        Raises:
            InputError: an image is unreadable, or the backbone cannot be used.
        """
        good = _evenly(good, _MOST_REFERENCES)
        extractors = {
            size: patch_features.create(config.backbone, size, _BACKBONE, device)
            for size in _sizes(config, good)
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
        maps = [s.anomaly_map(image, self.config.map_size) / s.peak for s in self._scales]
        return np.mean(maps, axis=0, dtype=np.float32)

    def maps(self, paths: Sequence[Path]) -> Iterator[NDArray[np.float32]]:
        """The map of each image, which is scored alone."""
        for image in _decoded(paths):
            yield self.anomaly_map(image)

    def save(self, path: Path) -> None:
        """Write everything but the backbone's weights.

        Raises:
            InputError: the file cannot be written.
        """
        tensors: dict[str, Tensor] = {}
        for number, scale in enumerate(self._scales):
            own = {"weight": scale.weight, "bias": scale.bias, **vars(scale.bank)}
            tensors |= {f"{number}.{name}": tensor.float() for name, tensor in own.items()}
        header = {
            "reference": asdict(self.config),
            "image_sizes": [scale.image_size for scale in self._scales],
            "peaks": [scale.peak for scale in self._scales],
        }
        save_tensors(path, tensors, header)

    @classmethod
    def load(cls, path: Path, device: torch.device) -> Reference:
        """Restore what `save` wrote.

        Args:
            path: the file.
            device: where to compute.

        Raises:
            InputError: the file is damaged or of another kind, or the backbone cannot be used.
        """
        tensors, header = load_tensors(path)
        where = f"{path}: its header"
        named = {field.name: header.get(field.name) for field in fields(_Header)}
        stored = foreign.build(_Header, named, where, complete=True)
        config = stored.reference
        scales = []
        for number, (size, peak) in enumerate(zip(stored.image_sizes, stored.peaks, strict=True)):
            features = patch_features.create(config.backbone, size, _BACKBONE, device)
            own = {name: tensors.pop(f"{number}.{name}", None) for name in _SHAPES}
            kept = _checked(own, sum(features.channels), path)
            bank = MemoryBank(kept["patches"].to(device), kept["spacing"].to(device))
            weight, bias = kept["weight"].to(device), kept["bias"].to(device)
            scales.append(_Scale(size, features, weight, bias, bank, peak))
        if tensors:
            raise InputError(f"{path}: holds {sorted(tensors)[0]}, which is not expected")
        return cls(config, scales)


@dataclass
class _Header:
    reference: ReferenceDetectorConfig
    image_sizes: list[int]
    peaks: list[float]

    def __post_init__(self) -> None:
        sizes = all(0 < size <= MAX_SIDE for size in self.image_sizes)
        known = sizes and 0 < len(self.image_sizes) <= len(_SHARES)
        if not known or len(self.peaks) != len(self.image_sizes) or min(self.peaks) <= 0:
            raise InputError(f"sizes {self.image_sizes} with peaks {self.peaks}: out of range")


_SHAPES = {"weight": 2, "bias": 1, "patches": 2, "spacing": 1}


def _checked(tensors: dict[str, Tensor | None], channels: int, path: Path) -> dict[str, Tensor]:
    """Tensors that fit each other and the backbone.

    Raises:
        InputError: they do not.
    """
    found = {}
    for name, dimensions in _SHAPES.items():
        tensor = tensors[name]
        if tensor is None or tensor.ndim != dimensions or tensor.dtype != torch.float32:
            raise InputError(f"{path}: {name} is missing or of another kind; compute the run again")
        if not tensor.isfinite().all():
            raise InputError(f"{path}: {name} holds values that are not finite numbers")
        found[name] = tensor
    width, n = found["weight"].shape[1], len(found["patches"])
    fits = (
        found["weight"].shape[0] == channels
        and found["bias"].shape == (width,)
        and found["patches"].shape[1] == width
        and found["spacing"].shape == (n,)
        and n > 0
        and bool((found["spacing"] > 0).all())
    )
    if not fits:
        raise InputError(f"{path}: its tensors do not fit each other; compute the run again")
    return found


def _sizes(config: ReferenceDetectorConfig, good: Sequence[Path]) -> list[int]:
    """The sizes that images are compared at; small photographs are not enlarged."""
    patch = patch_features.patch_size(config.backbone, _BACKBONE)
    sides = sorted(max(header.width, header.height) for header in map(read_header, good))
    largest = min(config.backbone.image_size, sides[len(sides) // 2])
    sizes = (max(2, round(largest * share / patch)) * patch for share in _SHARES)
    return list(dict.fromkeys(sizes))


def _draw_candidates(
    extractors: Mapping[int, PatchFeatures], good: Sequence[Path]
) -> dict[int, Tensor]:
    """For each image size (n, channels): patches drawn from all known-good images."""
    generators = {size: torch.Generator().manual_seed(_SEED) for size in extractors}
    share = math.ceil(_CANDIDATES / len(good))
    drawn: dict[int, list[Tensor]] = {size: [] for size in extractors}
    with console.steps("Maps: known-good photographs") as step:
        for done, image in enumerate(_decoded(good), start=1):
            for size, features in extractors.items():
                found, _ = _patches(features, image, size)
                order = torch.randperm(len(found), generator=generators[size])
                drawn[size].append(found[order[:share]])
            step(done, len(good))
    return {size: torch.cat(patches) for size, patches in drawn.items()}


def _select(
    config: ReferenceDetectorConfig, features: PatchFeatures, size: int, candidates: Tensor
) -> _Scale:
    """The bank of one size, not calibrated yet."""
    weight, bias = _projection(candidates, features.channels)
    bank = MemoryBank.of(candidates @ weight + bias, config.bank_size, config.neighbours)
    return _Scale(size, features, weight, bias, bank, peak=1.0)


def _calibrate(scales: Sequence[_Scale], map_size: int, good: Sequence[Path]) -> list[_Scale]:
    """The same banks with their peaks."""
    peaks, calibrated = [], _evenly(good, _CALIBRATED)
    with console.steps("Maps: scores of known-good photographs") as step:
        for done, image in enumerate(_decoded(calibrated), start=1):
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
    square = Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.array(square)).permute(2, 0, 1)[None] / 255
    pooled = [
        F.avg_pool2d(depth.float(), _NEIGHBOURHOOD, 1, _NEIGHBOURHOOD // 2, count_include_pad=False)
        for depth in features(pixels)
    ]
    h, w = pooled[0].shape[-2:]
    return torch.cat(pooled, 1)[0].flatten(1).T, (h, w)


def _decoded(paths: Sequence[Path]) -> Iterator[NDArray[np.uint8]]:
    """Images in order, decoded on threads, only a few at a time."""
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(paths), _DECODED):
            yield from pool.map(read_image, paths[start : start + _DECODED])


def _evenly(paths: Sequence[Path], most: int) -> Sequence[Path]:
    if len(paths) <= most:
        return paths
    return [paths[i * len(paths) // most] for i in range(most)]
