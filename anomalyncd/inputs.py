"""What the user gave: found, opened and checked before anything is computed or written."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from anomalyncd import detectors
from anomalyncd.config import Config, GroundTruthConfig
from anomalyncd.data import datasets
from anomalyncd.data.images import read_mask
from anomalyncd.errors import InputError
from anomalyncd.models import backbone
from anomalyncd.runtime import devices
from anomalyncd.storage import identity
from anomalyncd.storage.cache import Cache
from anomalyncd.storage.identity import Digests
from anomalyncd.types import Dataset, Regions


@dataclass(frozen=True)
class Inputs:
    """What the user gave, opened."""

    cache: Cache
    device: torch.device
    dataset: Dataset
    base: Dataset | None
    n_novel: int
    detector: detectors.Detector
    digests: Digests  # of all this
    seconds: float  # that opening took; the drawn product is drawn here


def open_inputs(config: Config) -> Inputs:
    """Find and open all that a run is computed from.

    Raises:
        InputError: something is missing, unreadable or unsuitable.
    """
    start = time.perf_counter()
    cache = Cache(Path(config.cache_folder))
    device = devices.choose(config.device)
    dataset, detector = open_images(config, cache, device)
    base = datasets.load_base(config.base, cache, config.max_megapixels)
    n_novel = novel_classes(config, dataset)
    digests = _digests(dataset, base, detector, backbone.weights_file(config.backbone))
    seconds = time.perf_counter() - start
    return Inputs(cache, device, dataset, base, n_novel, detector, digests, seconds)


def open_images(
    config: Config, cache: Cache, device: torch.device
) -> tuple[Dataset, detectors.Detector]:
    """The unlabelled images, and the detector of their anomaly maps.

    Raises:
        InputError: as `open_inputs`.
    """
    most = config.max_megapixels
    dataset = datasets.load(config.dataset, config.category, cache, max_megapixels=most)
    detector = detectors.create(config.detector, config.category, device, cache.root, most)
    _require_truth_masks(config, dataset)
    return dataset, detector


def novel_classes(config: Config, dataset: Dataset) -> int:
    """K, as it is set, or as many as there are label folders.

    Raises:
        InputError: there are no label folders to count, or too few images.
    """
    if len(dataset.samples) < 2:
        raise InputError(
            f"{dataset.samples[0].image} is the only image: expected at least 2 to find classes "
            "among; check dataset.path and dataset.leave_out"
        )
    if config.novel_classes != "auto":
        return int(config.novel_classes)
    if dataset.labels is None:
        raise InputError(
            "novel_classes=auto needs class folders to count and there are none; "
            "say how many classes to find, the defect-free one included: novel_classes=5"
        )
    found = len(dataset.labels.classes)
    if found < 2:
        raise InputError(
            f"novel_classes=auto found {found} class folder; expected at least 2, or say how many "
            "classes to find: novel_classes=5"
        )
    return found


def require_masks_fit(dataset: Dataset, regions: Regions) -> None:
    """Check each truth mask against its image: evaluation, after the training, needs them.

    Raises:
        InputError: a mask has another size than its image.
    """
    for sample, size in zip(dataset.samples, regions.image_sizes.tolist(), strict=True):
        if sample.truth_mask is not None:
            height, width = read_mask(sample.truth_mask).shape
            if [height, width] != size:
                raise InputError(
                    f"{sample.truth_mask}: a mask of {width} × {height} pixels for an image of "
                    f"{size[1]} × {size[0]}; expected the same size"
                )


def _require_truth_masks(config: Config, dataset: Dataset) -> None:
    """detector=ground_truth would take a defect without a mask for a defect-free image."""
    labels = dataset.labels
    if not isinstance(config.detector, GroundTruthConfig) or labels is None:
        return
    for sample, target in zip(dataset.samples, labels.targets.tolist(), strict=True):
        if sample.truth_mask is None and target != labels.normal:
            raise InputError(
                f"detector=ground_truth: no truth mask for {sample.image}; add the masks of this "
                "type, leave it out with dataset.leave_out, or use another detector"
            )


def _digests(
    dataset: Dataset, base: Dataset | None, detector: detectors.Detector, weights: Path | None
) -> Digests:
    files = identity.files_of(dataset)
    if base:
        files |= identity.files_of(base, "base ")
    if weights:
        files["weights file"] = {weights.name: weights}
    of_detector = detectors.inputs(detector, replace(dataset, labels=None))
    return identity.digests(files) | of_detector
