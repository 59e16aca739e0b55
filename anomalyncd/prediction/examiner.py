"""What classifies groups of photographs: a run with torch, or an exported file without it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from anomalyncd.config import FilesDetectorConfig, PredictConfig
from anomalyncd.detectors.files import FilesDetector
from anomalyncd.inference.predicted import Examined
from anomalyncd.storage.cache import Cache
from anomalyncd.storage.exported import is_exported
from anomalyncd.types import Dataset, ResizeMode

if TYPE_CHECKING:
    from anomalyncd.prediction.neighbours import Neighbours


class Examiner(Protocol):
    """A classifier, with the anomaly maps that a command has asked for."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """(K,) names, by class id."""
        ...

    @property
    def resize_mode(self) -> ResizeMode:
        """How regions that are not square were stored."""
        ...

    @property
    def search_range(self) -> tuple[float, float]:
        """Levels of the maps that pictures of heat show."""
        ...

    @property
    def alone(self) -> bool:
        """Whether an image is scored without looking at the other new ones."""
        ...

    @property
    def neighbours(self) -> Neighbours | None:
        """The known regions; None: there are none to compare with."""
        ...

    def examine(self, dataset: Dataset, cache: Cache) -> Examined:
        """Classify photographs.

        Raises:
            InputError: one of them, or its map, cannot be used.
        """
        ...


def given_maps(config: PredictConfig) -> FilesDetector | None:
    """The maps that a command names; None: the classifier makes them itself."""
    settings = cast(FilesDetectorConfig, config.detector)  # config.py has checked it
    if not settings.path:
        return None
    return FilesDetector(settings.path, config.category, config.max_megapixels)


def files_of(run: str) -> tuple[Path, ...]:
    """The files that hold the model of a run, or of an exported file's path."""
    path = Path(run)
    if not is_exported(path):
        return (path / "model.safetensors",)
    return (path, path.with_suffix(".bin")) if path.suffix == ".xml" else (path,)
