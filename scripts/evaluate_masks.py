"""How well each binarization finds defective images, and defects in them, where masks tell.

    python -m scripts.evaluate_masks dataset=mvtec category=screw dataset.path=… detector.path=…

Takes the settings of `anomalyncd run`; `mebin.*` among them hold for all methods compared. A row
per method: defect-free images that get a region (FPR), defective ones that get none (FNR), the
mean overlap (IoU) of masks with the truth over all defective images and over those found, and
milliseconds an image. Masks are compared at the map's resolution. For the adaptive method also the
FPR that its gate would have at the published method's FNR.
"""

from __future__ import annotations

import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import anomalyncd
from anomalyncd.data.images import read_image
from anomalyncd.detectors import map_store
from anomalyncd.evaluation.map_quality import truth_at
from anomalyncd.inputs import find_images, open_detector
from anomalyncd.regions import mebin
from anomalyncd.regions.binarization import binarize_one
from anomalyncd.regions.gate import find_gate, spot_level
from anomalyncd.runtime import devices
from anomalyncd.storage.cache import Cache
from anomalyncd.types import UNLABELLED, Dataset

METHODS = ("mebin", "fixed", "otsu", "adaptive, map alone", "adaptive")


@dataclass(frozen=True)
class Row:
    method: str
    fpr: float
    fnr: float
    iou: float  # of all defective images with a mask; 0 where nothing was found
    iou_found: float  # of those that were found
    milliseconds: float  # an image, its decoding left out

    def __str__(self) -> str:
        figures = f"{self.fpr:.3f} / {self.fnr:.3f} | {self.iou:.3f} | {self.iou_found:.3f}"
        return f"| {self.method} | {figures} | {self.milliseconds:.1f} |"


def overlap(mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Intersection over union; `truth` is not empty."""
    return float((mask & truth).sum() / (mask | truth).sum())


def fpr_at(fnr: float, spots: NDArray[np.float64], defective: NDArray[np.bool_]) -> float:
    """Share of defect-free images above the highest gate that misses no more than `fnr`.

    Example:
        >>> spots, defective = np.array([1, 3, 2, 4, 5, 6]), np.array([0, 0, 1, 1, 1, 1], bool)
        >>> fpr_at(0, spots, defective), fpr_at(0.25, spots, defective)
        (0.5, 0.0)
    """
    lowest_passing = np.sort(spots[defective])[int(fnr * defective.sum() + 1e-9)]
    return float((spots[~defective] >= lowest_passing).mean())


def evaluate(dataset: Dataset, maps: map_store.StoredMaps, settings: anomalyncd.Config) -> None:
    """Print the table."""
    labels = dataset.labels
    assert labels is not None and labels.normal is not None, "needs labels and a normal class"
    lo, hi = settings.mebin.search_range or mebin.search_range(maps)
    gate = settings.mebin.gate or find_gate(maps, settings.mebin.normal_probability)
    print(f"{len(maps)} maps, search range {lo:g} to {hi:g}, gate {gate:.1f}")
    print("| method | FPR / FNR | IoU | IoU where found | ms an image |")
    print("| :-- | --: | --: | --: | --: |")
    scored = np.flatnonzero(labels.targets != UNLABELLED)
    defective = labels.targets[scored] != labels.normal
    published: Row | None = None
    for method in METHODS:
        name, _, map_alone = method.partition(",")
        config = replace(settings.mebin, method=name, gate=gate if name == "adaptive" else None)
        found, overlaps, hits, seconds = [], [], [], 0.0
        for i, is_defective in zip(scored, defective, strict=True):
            sample, anomaly_map = dataset.samples[int(i)], maps[int(i)]
            image = None if map_alone or name != "adaptive" else read_image(sample.image)
            start = time.perf_counter()
            mask = binarize_one(anomaly_map, lo, hi, config, image).mask
            seconds += time.perf_counter() - start
            found.append(mask.any())
            if not is_defective or sample.truth_mask is None:
                continue
            truth = truth_at(sample.truth_mask, mask.shape)
            if truth.any():
                overlaps.append(overlap(mask, truth))
                hits.append(mask.any())
        passes = np.array(found)
        row = Row(
            method,
            float(passes[~defective].mean()),
            float((~passes)[defective].mean()),
            float(np.mean(overlaps)),
            float(np.mean(np.array(overlaps)[hits])),
            seconds / len(scored) * 1e3,
        )
        published = published or row
        print(row, flush=True)
    assert published
    spots = np.array([spot_level(maps[int(i)]) for i in scored])
    fpr = fpr_at(published.fnr, spots, defective)
    print(f"FPR of the gate at FNR {published.fnr:.3f}: {fpr:.3f} (published: {published.fpr:.3f})")


def main(overrides: list[str]) -> None:
    settings = anomalyncd.compose(*overrides)
    cache = Cache(Path(settings.cache_folder))
    dataset = find_images(settings, cache)
    detector = open_detector(settings, cache, devices.choose(settings.device))
    given = asdict(settings.detector)
    maps = map_store.collect(detector, dataset, settings.category, cache, settings=given)
    evaluate(dataset, maps, settings)


if __name__ == "__main__":
    main(sys.argv[1:])
