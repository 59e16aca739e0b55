"""Maps of any image model of anomalib, by its name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from anomalyncd.config import AnomalibDetectorConfig
from anomalyncd.data.folders import require_targets
from anomalyncd.errors import InputError
from anomalyncd.storage.cache import digest_files
from anomalyncd.types import Dataset

if TYPE_CHECKING:
    import torch

VERSION = 1  # part of the cache key: raise it when maps change


class AnomalibDetector:
    """Trains a model on the defect-free training images, if it needs them, and applies it.

    Raises:
        InputError: anomalib is not installed, or as in `anomalib_models.anomaly_maps`.
    """

    def __init__(self, config: AnomalibDetectorConfig, device: torch.device) -> None:
        self.config = config
        self.device = device

    def key(self, dataset: Dataset) -> Any:
        try:
            installed = version("anomalib")
        except PackageNotFoundError as error:
            raise _not_installed(self.config.model) from error
        return (
            VERSION,
            installed,
            asdict(self.config),
            digest_files(training_pictures(self.config).values()),
        )

    def maps(self, dataset: Dataset) -> Iterator[NDArray]:
        try:
            # Imported here: it takes seconds, and cached maps do not need it.
            from anomalyncd.detectors.anomalib_models import anomaly_maps
        except ImportError as error:
            raise _not_installed(self.config.model) from error
        images = [sample.image for sample in dataset.samples]
        yield from anomaly_maps(self.config, dataset.train, images, self.device)


def training_pictures(config: AnomalibDetectorConfig) -> dict[str, Path]:
    """The files in folders named by the model's options, such as textures for drawn defects.

    Raises:
        InputError: one is a link to a missing file.
    """
    named = {k: Path(v) for k, v in config.options.items() if isinstance(v, str)}
    found = {
        f"{option}/{path.relative_to(folder).as_posix()}": path
        for option, folder in named.items()
        if folder.is_dir()
        for path in sorted(folder.rglob("*"))
    }
    require_targets(found.values())
    return {name: path for name, path in found.items() if path.is_file()}


def _not_installed(model: str) -> InputError:
    return InputError(
        f"detector.model={model}: anomalib is not installed; pip install 'anomalyncd[anomalib]'"
    )
