"""The user's inputs: found, opened and checked before anything is computed or written."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from anomalyncd import detectors
from anomalyncd.config import Config, GroundTruthConfig
from anomalyncd.data import datasets
from anomalyncd.data.images import read_mask
from anomalyncd.errors import InputError
from anomalyncd.storage import identity
from anomalyncd.storage.cache import Cache
from anomalyncd.storage.identity import Digests
from anomalyncd.types import Dataset, Regions

if TYPE_CHECKING:
    import torch


_MAX_OUTPUTS = 1_000_000


@dataclass(frozen=True)
class FoundInputs:
    """The inputs with digests of their content; finding them does not need PyTorch."""

    cache: Cache
    dataset: Dataset
    base: Dataset | None
    n_novel: int | None  # K; None: estimated from the regions
    digests: Digests  # of all input files
    seconds: float  # time to find the inputs, including the drawing of the demo product


@dataclass(frozen=True)
class Inputs(FoundInputs):
    """The inputs with device and detector, ready for the computation."""

    device: torch.device
    detector: detectors.Detector


def find_inputs(config: Config) -> FoundInputs:
    """Find all inputs of a run.

    Raises:
        InputError: something is missing, unreadable or unsuitable.
    """
    start = time.perf_counter()
    cache = Cache(Path(config.cache_folder))
    dataset = find_images(config, cache)
    base = datasets.load_base(config.base, cache, config.max_megapixels)
    n_novel = novel_classes(config, dataset)
    _require_few_outputs(config, base, n_novel)
    digests = _digests(config, dataset, base)
    seconds = time.perf_counter() - start
    return FoundInputs(cache, dataset, base, n_novel, digests, seconds)


def open_inputs(config: Config, found: FoundInputs) -> Inputs:
    """Choose the device and create the detector.

    Raises:
        InputError: the device does not exist, or the detector cannot be created.
    """
    from anomalyncd.runtime import devices  # loads torch

    device = devices.choose(config.device)
    detector = open_detector(config, found.cache, device)
    return Inputs(**vars(found), device=device, detector=detector)


def find_images(config: Config, cache: Cache) -> Dataset:
    """The unlabelled images and, separately, their labels.

    Raises:
        InputError: as in `find_inputs`.
    """
    most = config.max_megapixels
    results = [Path(config.output_root), cache.root]
    dataset = datasets.load(
        config.dataset, config.category, cache, max_megapixels=most, left_out=results
    )
    _require_truth_masks(config, dataset)
    return dataset


def open_detector(config: Config, cache: Cache, device: torch.device) -> detectors.Detector:
    """The detector of the anomaly maps.

    Raises:
        InputError: it cannot be created.
    """
    most = config.max_megapixels
    return detectors.create(config.detector, config.category, device, cache.root, most)


def novel_classes(config: Config, dataset: Dataset) -> int | None:
    """K: as set, or the number of label folders; None if it is estimated.

    Raises:
        InputError: there are no label folders to count, or too few images.
    """
    if len(dataset.samples) < 2:
        raise InputError(
            f"{dataset.samples[0].image} is the only image: expected at least 2 to find "
            "classes; check dataset.path and dataset.leave_out"
        )
    if isinstance(config.novel_classes, int):
        return config.novel_classes
    if config.novel_classes == "estimate" or (
        dataset.labels is None and config.discovery.is_consensus
    ):
        return None
    if dataset.labels is None:
        raise InputError(
            "novel_classes=auto counts class folders, and there are none; let it be estimated with "
            "experiment=discover, or set how many classes to find, including the defect-free one: "
            "novel_classes=5"
        )
    found = len(dataset.labels.classes)
    if found < 2:
        raise InputError(
            f"novel_classes=auto found {found} class folder; expected at least 2, or set how many "
            "classes to find: novel_classes=5"
        )
    return found


def require_masks_fit(dataset: Dataset, regions: Regions) -> None:
    """Check the size of each truth mask before training, since the evaluation needs them.

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
    """With detector=ground_truth, a defective image without a mask would count as defect-free."""
    labels = dataset.labels
    if not isinstance(config.detector, GroundTruthConfig) or labels is None:
        return
    for sample, target in zip(dataset.samples, labels.targets.tolist(), strict=True):
        if sample.truth_mask is None and target != labels.normal:
            raise InputError(
                f"detector=ground_truth: no truth mask for {sample.image}; add the masks of this "
                "type, leave it out with dataset.leave_out, or use another detector"
            )


def _require_few_outputs(config: Config, base: Dataset | None, n_novel: int | None) -> None:
    """Check early: the weights of all outputs of all heads are allocated only after the maps."""
    n = (n_novel or 0) + (len(base.labels.classes) if base and base.labels else 0)
    if config.train.heads * n > _MAX_OUTPUTS:
        raise InputError(
            f"train.heads={config.train.heads} of {n} classes each: expected at most "
            f"{_MAX_OUTPUTS:,} outputs together; lower train.heads or novel_classes"
        )


def _digests(config: Config, dataset: Dataset, base: Dataset | None) -> Digests:
    files = identity.files_of(dataset)
    if base:
        files |= identity.files_of(base, "base ")
    if weights := identity.weights_file(config.backbone):
        files["weights file"] = {weights.name: weights}
    unlabelled = replace(dataset, labels=None)
    return identity.digests(files) | detectors.inputs(config.detector, config.category, unlabelled)
