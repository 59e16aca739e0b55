"""A simulated detector for the demo product: it uses the truth masks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from anomalyncd.data.demo.rendering import Array, cloud
from anomalyncd.data.images import read_mask
from anomalyncd.storage.cache import digest_files
from anomalyncd.types import Dataset

VERSION = 1  # part of the cache key: raise it when maps change
MISSES, FALSE_ALARMS = 0.08, 0.2  # shares of the pictures


class SimulatedDetector:
    """Blurred truth masks with noise, misses and false alarms. It sees the masks, so its figures
    show that the software works, and nothing about detection."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def key(self, dataset: Dataset) -> Any:
        masks = [sample.truth_mask for sample in dataset.samples]
        digests = iter(digest_files(mask for mask in masks if mask is not None))
        return self.seed, VERSION, [None if mask is None else next(digests) for mask in masks]

    def maps(self, dataset: Dataset) -> Iterator[NDArray]:
        streams = np.random.SeedSequence(self.seed).spawn(len(dataset.samples))
        for sample, stream in zip(dataset.samples, streams, strict=True):
            truth = None if sample.truth_mask is None else read_mask(sample.truth_mask)
            yield simulated_map(truth, np.random.default_rng(stream))


def simulated_map(
    truth: NDArray[np.bool_] | NDArray[np.uint8] | None, rng: Generator, *, side: int = 224
) -> Array:
    """A map as from a good but imperfect anomaly detector.

    Each connected defect gets a random strength and is sometimes missed; the normal background is
    uneven and sometimes has a weak false alarm. Scores are drawn on a 28 by 28 grid, as in
    detectors with a patch backbone, which makes the map smooth.

    Args:
        truth: (h, w), non-zero = defect; None for a defect-free picture.
        rng: source of all random numbers.
        side: height and width of the map.

    Returns:
        (side, side) float32 ≥ 0, larger = more anomalous, comparable between pictures.
    """
    cells = 28
    score = 0.22 + 0.03 * cloud(rng, (cells, cells), 4) + 0.015 * cloud(rng, (cells, cells), 1)
    if rng.random() < FALSE_ALARMS:
        at = np.zeros((cells, cells), np.float32)
        at[tuple(rng.integers(cells // 6, cells - cells // 6, 2))] = 1
        blob = cv2.GaussianBlur(at, (0, 0), rng.uniform(0.8, 1.8))
        score += rng.uniform(0.08, 0.35) * blob / blob.max()
    if truth is not None:
        missed = rng.random() < MISSES
        count, labels = cv2.connectedComponents((truth > 0).astype(np.uint8))
        for label in range(1, count):
            defect = (labels == label).astype(np.float32)
            share = cv2.resize(defect, (cells, cells), interpolation=cv2.INTER_AREA)
            # A thin defect fills little of a cell but still changes its feature.
            seen = np.minimum(cv2.GaussianBlur(np.sqrt(share), (0, 0), 0.7) / 0.6, 1)
            score += seen * (rng.uniform(0.0, 0.15) if missed else rng.uniform(0.4, 0.8))
    smooth = cv2.resize(score, (side, side), interpolation=cv2.INTER_CUBIC)
    return np.maximum(smooth, 0)
