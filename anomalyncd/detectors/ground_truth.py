"""The truth masks as anomaly maps: the upper bound, with a perfect detector."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomalyncd.data.images import read_header, read_mask
from anomalyncd.errors import InputError
from anomalyncd.storage.cache import digest_files
from anomalyncd.types import Dataset


class GroundTruthDetector:
    """255 inside the truth mask, 0 outside; images without a mask count as defect-free."""

    def key(self, dataset: Dataset) -> Any:
        masks = self._masks(dataset)
        digests = iter(digest_files(mask for mask in masks if mask is not None))
        sizes = [read_header(sample.image)[:2] for sample in dataset.samples]
        return [None if mask is None else next(digests) for mask in masks], sizes

    def maps(self, dataset: Dataset) -> Iterator[NDArray]:
        for sample, mask in zip(dataset.samples, self._masks(dataset), strict=True):
            if mask is None:
                header = read_header(sample.image)
                yield np.zeros((header.height, header.width), np.uint8)
            else:
                yield read_mask(mask) * np.uint8(255)

    @staticmethod
    def _masks(dataset: Dataset) -> list[Path | None]:
        masks = [sample.truth_mask for sample in dataset.samples]
        if not any(masks):
            raise InputError(
                f"detector=ground_truth: no truth mask for any of {len(masks)} images, such as "
                f"{dataset.samples[0].image}; add the masks or use another detector"
            )
        return masks
