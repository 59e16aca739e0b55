"""The quality of anomaly maps and of their binarization, compared with labels and masks."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from anomalyncd.data.images import read_mask
from anomalyncd.detectors.map_store import StoredMaps
from anomalyncd.evaluation import metrics
from anomalyncd.runtime.versions import versions
from anomalyncd.storage.cache import Cache, digest_files
from anomalyncd.types import UNLABELLED, AnomalyMaps, Dataset

VERSION = 1  # part of the cache key: raise it when the evaluation changes
_QUALITY = "quality.json"
_SIZE = 256  # pixels at which overlaps are compared, if memory allows
_AUPRO_PIXELS = 20_000_000  # of all maps together: the curve needs 60 bytes for each


def evaluate_maps(
    dataset: Dataset, anomaly_maps: StoredMaps, cache: Cache
) -> dict[str, float | None]:
    """Compare maps with labels and truth masks; cached for all runs on the same maps.

    Pixels are compared at the map's resolution, where a pixel is defective if the mask covers at
    least half of it. Defective images without a mask are left out of this comparison.

    Returns:
        image_auroc, pixel_auroc and aupro (up to a false positive rate of 0.3; None without
        anomalib), 1 at best; None if there is nothing to compare.
    """
    labels = dataset.labels
    if labels is None or labels.normal is None:
        return {"image_auroc": None, "pixel_auroc": None, "aupro": None}

    scored = np.flatnonzero(labels.targets != UNLABELLED)
    defective = labels.targets[scored] != labels.normal

    def build(folder: Path) -> None:
        quality = _compute_quality(dataset, anomaly_maps, scored, defective)
        (folder / _QUALITY).write_text(json.dumps(quality), encoding="utf-8")

    masks = [sample.truth_mask for sample in dataset.samples]
    made_of = [anomaly_maps.folder.name, scored.tolist(), defective.tolist()]
    truth = [[mask is None for mask in masks], digest_files(mask for mask in masks if mask)]
    key = [VERSION, versions(), *made_of, *truth]
    place = cache.entry("map-quality", key, build)
    return json.loads((place / _QUALITY).read_text(encoding="utf-8"))


def _compute_quality(
    dataset: Dataset,
    anomaly_maps: AnomalyMaps,
    scored: NDArray[np.int64],
    defective: NDArray[np.bool_],
) -> dict[str, float | None]:
    peaks = [int(anomaly_maps[int(i)].max()) for i in scored]
    masked = [
        int(i)
        for i, is_defective in zip(scored, defective, strict=True)
        if dataset.samples[int(i)].truth_mask is not None or not is_defective
    ]
    return {
        "image_auroc": metrics.image_auroc(peaks, defective),
        "pixel_auroc": metrics.pixel_auroc(_pairs(dataset, anomaly_maps, masked)),
        "aupro": _aupro(dataset, anomaly_maps, masked),
    }


def evaluate_binarization(dataset: Dataset, counts: NDArray[np.int64]) -> dict[str, float | None]:
    """Compare labels with whether an image has a main element (the paper's ablation of MEBin).

    Args:
        dataset: with labels; images that are not scored are left out.
        counts: (n_images,) main elements of each.

    Returns:
        fpr and fnr, as in `metrics.detection_rates`; None if there is nothing to compare.
    """
    labels = dataset.labels
    if labels is None or labels.normal is None:
        return {"fpr": None, "fnr": None}
    scored = labels.targets != UNLABELLED
    fpr, fnr = metrics.detection_rates(counts[scored] > 0, labels.targets[scored] != labels.normal)
    return {"fpr": fpr, "fnr": fnr}


def _pairs(
    dataset: Dataset, anomaly_maps: AnomalyMaps, images: list[int]
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.bool_]]]:
    for i in images:
        scores, mask = anomaly_maps[i], dataset.samples[i].truth_mask
        if mask is None:
            yield scores, np.zeros(scores.shape, bool)
        else:
            yield scores, truth_at(mask, scores.shape)


def truth_at(mask: Path, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """A truth mask at a map's resolution: a pixel is defective that the mask covers by half.

    Args:
        mask: its file.
        shape: (h, w) of the map.

    Raises:
        InputError: the file is unreadable.
    """
    height, width = shape
    whole = read_mask(mask).astype(float)
    return cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA) >= 0.5


def _aupro(dataset: Dataset, anomaly_maps: AnomalyMaps, images: list[int]) -> float | None:
    if not any(dataset.samples[i].truth_mask for i in images):
        return None
    try:
        from anomalyncd.anomalib.aupro import aupro  # takes seconds to load
    except ImportError:
        return None

    masks = (
        None if mask is None else read_mask(mask)
        for mask in (dataset.samples[i].truth_mask for i in images)
    )
    size = min(_SIZE, math.isqrt(_AUPRO_PIXELS // len(images)))
    return aupro((anomaly_maps[i] for i in images), masks, size=size)
