"""Ways to get anomaly maps, one file each.

A detector says what its maps depend on and yields one map per image. To add one: a configuration
class in `config.py`, a file here, a line in `create`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from numpy.typing import NDArray

from anomalyncd.config import (
    DetectorConfig,
    FilesDetectorConfig,
    GroundTruthConfig,
    SimulatedDetectorConfig,
)
from anomalyncd.detectors.files import FilesDetector
from anomalyncd.detectors.ground_truth import GroundTruthDetector
from anomalyncd.detectors.simulated import SimulatedDetector
from anomalyncd.errors import InputError
from anomalyncd.types import Dataset


class Detector(Protocol):
    def key(self, dataset: Dataset) -> Any:
        """All that the maps depend on, as JSON, so that equal maps are made once."""
        ...

    def maps(self, dataset: Dataset) -> Iterator[NDArray]:
        """One (h, w) map per sample, in order; any numeric type and range, larger = more anomalous.

        Maps of type uint8 count as normalised over the category already and are used as they are.
        """
        ...


def create(config: DetectorConfig, category: str) -> Detector:
    match config:
        case FilesDetectorConfig():
            return FilesDetector(config.path, category)
        case GroundTruthConfig():
            return GroundTruthDetector()
        case SimulatedDetectorConfig():
            return SimulatedDetector(config.seed)
    raise InputError(f"detector.kind={config.kind}: expected files, ground_truth or simulated")
