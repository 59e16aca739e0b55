"""Detectors: sources of anomaly maps, one file each.

A detector returns a key of what its maps depend on, and yields one map per image. Your own one
needs only a file of yours: detector=custom detector.target=module:Class; see CONTRIBUTING.md.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

from numpy.typing import NDArray

from anomalyncd.config import (
    MAX_MEGAPIXELS,
    AnomalibDetectorConfig,
    CustomDetectorConfig,
    DetectorConfig,
    FilesDetectorConfig,
    GroundTruthConfig,
    MuscDetectorConfig,
    ReferenceDetectorConfig,
    SimulatedDetectorConfig,
)
from anomalyncd.detectors.anomalib import AnomalibDetector, training_pictures
from anomalyncd.detectors.files import FilesDetector
from anomalyncd.detectors.ground_truth import GroundTruthDetector
from anomalyncd.detectors.simulated import SimulatedDetector
from anomalyncd.errors import InputError
from anomalyncd.runtime.plugins import call_target
from anomalyncd.storage.cache import digest
from anomalyncd.storage.identity import Digests, digests, weights_file
from anomalyncd.types import Dataset

if TYPE_CHECKING:  # torch takes seconds to load and is not needed to recognise a finished run
    import torch


@runtime_checkable
class KeepsWhatItLearned(Protocol):
    """A detector whose maps of new images follow from a file that it writes."""

    def save(self, path: Path) -> None:
        """Write all that maps of new images need; called after `Detector.maps` is exhausted."""
        ...


class Detector(Protocol):
    """The interface of all detectors; they get the dataset without its labels."""

    def key(self, dataset: Dataset) -> Any:
        """What the maps depend on besides images and settings, as JSON: the key of the cache."""
        ...

    def maps(self, dataset: Dataset) -> Iterator[NDArray]:
        """One (h, w) map per sample, in order; any numeric type and range, larger = more anomalous.

        Arrays, or tensors on the CPU, of finite numbers that a float32 can hold, all of one type.
        Maps of type uint8 must be normalised over the category already; they are not changed.
        """
        ...


@dataclass(frozen=True)
class _Place:
    category: str
    device: torch.device
    workspace: Path
    max_megapixels: int


# The registry: one line for each schema of a detector.
_BUILDERS: dict[type[DetectorConfig], Callable[[Any, _Place], Detector]] = {
    FilesDetectorConfig: lambda c, at: FilesDetector(c.path, at.category, at.max_megapixels),
    GroundTruthConfig: lambda c, at: GroundTruthDetector(),
    SimulatedDetectorConfig: lambda c, at: SimulatedDetector(c.seed),
    MuscDetectorConfig: lambda c, at: _musc(c, at),
    ReferenceDetectorConfig: lambda c, at: _reference(c, at),
    AnomalibDetectorConfig: lambda c, at: AnomalibDetector(c, at.device),
    CustomDetectorConfig: lambda c, at: _custom(c),
}


def create(
    config: DetectorConfig,
    category: str,
    device: torch.device,
    workspace: Path,
    max_megapixels: int = MAX_MEGAPIXELS,
) -> Detector:
    """The detector that a configuration names.

    Args:
        config: one of `configs/detector`.
        category: name of the product.
        device: where to compute.
        workspace: folder for temporary files that do not fit in memory.
        max_megapixels: of the largest map that is read from a file.
    """
    if type(config) not in _BUILDERS:
        raise InputError(f"detector.kind={config.kind}: expected one of configs/detector")
    return _BUILDERS[type(config)](config, _Place(category, device, workspace, max_megapixels))


def inputs(config: DetectorConfig, category: str, dataset: Dataset) -> Digests:
    """Digests of the files that maps depend on, besides images, truth masks and settings.

    Unlike `Detector.key`, this does not depend on the machine or on library versions: a finished
    run stays finished on another machine.

    Args:
        config: one of `configs/detector`.
        category: name of the product.
        dataset: the images, without labels.

    Raises:
        InputError: something is missing or unreadable.
    """
    train = _named(dataset.train)
    match config:
        case FilesDetectorConfig():
            return FilesDetector(config.path, category).inputs(dataset)
        case MuscDetectorConfig() | ReferenceDetectorConfig():
            file = config.backbone and weights_file(config.backbone, "detector.backbone")
            weights = {"detector's weights file": {file.name: file}} if file else {}
            learns = isinstance(config, ReferenceDetectorConfig)
            return digests({"training image": train, **weights} if learns else weights)
        case AnomalibDetectorConfig():
            pictures = training_pictures(config)
            return digests({"training image": train, "training picture": pictures})
        case CustomDetectorConfig():
            its_key = digest(key(_custom(config), dataset))
            return {**digests({"training image": train}), "detector": {"its key": its_key}}
    return {}


def _named(paths: Sequence[Path]) -> dict[str, Path]:
    """Files by their paths relative to their common folder, so that its place does not matter."""
    if not paths:
        return {}
    whole = [Path(os.path.abspath(path)) for path in paths]
    common = os.path.commonpath([path.parent for path in whole])
    return {path.relative_to(common).as_posix(): path for path in whole}


def key(detector: Detector, dataset: Dataset) -> Any:
    """What the detector's maps depend on, as JSON.

    Raises:
        InputError: the detector fails, or its key is not JSON.
    """
    with reported(detector):
        found = detector.key(dataset)
    try:
        digest(found)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{name(detector)}: its key() returns data that is not JSON ({error}); expected text, "
            "numbers, and lists or dictionaries of them"
        ) from error
    return found


@contextmanager
def reported(detector: Detector) -> Iterator[None]:
    """Report any error of a detector in one line that names it.

    Raises:
        InputError: for any error except those of too little memory or a full disk.
    """
    try:
        yield
    except (InputError, StopIteration):
        raise
    except Exception as error:
        from anomalyncd.runtime.devices import is_out_of_memory  # the detector has loaded torch

        is_full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if is_full or is_out_of_memory(error):
            raise
        reason = " ".join(str(error).split())
        raise InputError(
            f"{name(detector)}: {type(error).__name__}: {reason} (debug=true shows where)"
        ) from error


def name(detector: Detector) -> str:
    """The detector's name in messages."""
    return f"detector {type(detector).__name__}"


def memory_advice(config: DetectorConfig) -> str:
    """What to set when the detector runs out of memory."""
    match config:
        case MuscDetectorConfig():
            network = config.backbone
            smaller = f" or detector.backbone.image_size={network.image_size}" if network else ""
            return f"lower detector.memory_gb={config.memory_gb:g}{smaller}"
        case ReferenceDetectorConfig():
            size = config.backbone.image_size
            return (
                f"lower detector.backbone.image_size={size} or "
                f"detector.bank_size={config.bank_size}"
            )
        case AnomalibDetectorConfig():
            return (
                f"lower detector.batch_size={config.batch_size}, or set a smaller "
                "detector.image_size"
            )
    return f"the detector ({config.label}) needs too much; give it smaller images"


def _musc(config: MuscDetectorConfig, at: _Place) -> Detector:
    from anomalyncd.detectors.musc import MuscDetector  # loads torch

    return MuscDetector(config, at.device, at.workspace)


def _reference(config: ReferenceDetectorConfig, at: _Place) -> Detector:
    from anomalyncd.detectors.reference import ReferenceDetector  # loads torch

    return ReferenceDetector(config, at.device)


def _custom(config: CustomDetectorConfig) -> Detector:
    detector = call_target(
        "detector.target",
        config.target,
        config.options,
        "module:ClassName, whose constructor takes detector.options",
    )
    for method in ("key", "maps"):
        if not callable(getattr(detector, method, None)):
            raise InputError(
                f"detector.target={config.target}: it has no method {method}(dataset); expected "
                "key(dataset) and maps(dataset), as anomalyncd.detectors.Detector describes them"
            )
    return cast(Detector, detector)
