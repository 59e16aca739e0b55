"""Anomaly maps of many new photographs, kept part by part, so that a killed extension resumes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomalyncd import detectors
from anomalyncd.storage.cache import Cache, digest_files
from anomalyncd.types import Dataset

PART = 32  # photographs whose maps are kept together


class InParts:
    """A detector whose maps are kept in a cache, PART photographs at a time.

    Args:
        detector: scores each photograph by itself.
        cache: where the parts are kept.
    """

    def __init__(self, detector: detectors.Detector, cache: Cache) -> None:
        self._detector = detector
        self._cache = cache

    def key(self, dataset: Dataset) -> Any:
        return self._detector.key(dataset)

    def maps(self, dataset: Dataset) -> Iterator[NDArray]:
        """As the detector's."""
        for start in range(0, len(dataset.samples), PART):
            part = replace(dataset, samples=dataset.samples[start : start + PART])

            def build(folder: Path, part: Dataset = part) -> None:
                for number, scores in enumerate(self._detector.maps(part)):
                    np.save(folder / f"{number}.npy", np.asarray(scores))

            contents = digest_files(sample.image for sample in part.samples)
            folder = self._cache.entry("maps-part", [self._detector.key(part), contents], build)
            for number in range(len(part.samples)):
                yield np.load(folder / f"{number}.npy", allow_pickle=False)
