"""The data types of the method: frozen dataclasses with shapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

UNLABELLED = -1
# Classes of a prediction besides the learned ones: unlike every learned class, and unlike the
# product.
UNKNOWN, OUT_OF_SCOPE = -1, -2
VERDICTS = {UNKNOWN: "unknown", OUT_OF_SCOPE: "out of scope"}


def class_name(class_id: int, names: Sequence[str]) -> str:
    """Of a learned class, 0 … K − 1, or of a verdict."""
    return VERDICTS[class_id] if class_id in VERDICTS else names[class_id]


# Choices that the configuration and the computation share.
MaskedQueries = Literal[
    "class_token", "patch_tokens", "all_tokens", "none"
]  # whose queries are masked
MaskPooling = Literal["average", "max"]  # how a patch's share of the mask is measured
ResizeMode = Literal["letterbox", "stretch", "compat"]  # how a non-square region becomes square
Weighting = Literal["area", "average", "score"]  # of an image's regions
AreaUnit = Literal["pixels", "relative"]  # of √area in the fusion
RegionLabels = Literal["mask", "image"]  # what determines the true class of a region
FeatureSource = Literal["online", "cached"]  # where training gets class tokens from
Precision = Literal["auto", "float32", "bfloat16"]  # of the frozen blocks

# One anomaly map per test image, in the order of the samples; larger = more anomalous. Each is
# (h, w) at the detector's own resolution. Sequences are lazy: an element may be read from disk.
AnomalyMaps = Sequence[np.ndarray]


@dataclass(frozen=True)
class Sample:
    """One image on disk, without its label: labels are kept separately, in `Labels`."""

    id: str  # unique: "<type folder>/<stem>", or the path below the folder without suffix
    image: Path
    truth_mask: Path | None = None  # None: defect-free, or no mask known


@dataclass(frozen=True)
class Labels:
    """True classes of the samples, for scoring only."""

    classes: tuple[str, ...]  # the normal class first, if there is one
    targets: NDArray[np.int64]  # (n_samples,), index into classes; UNLABELLED = not scored
    normal: int | None  # index of the defect-free class (always 0), None if there is none


@dataclass(frozen=True)
class Dataset:
    """The result of `datasets.load`: the unlabelled images and, separately, their labels."""

    samples: tuple[Sample, ...]
    labels: Labels | None  # None: a folder of images without class folders
    train: tuple[Path, ...] = ()  # defect-free training images, for detectors that learn
    warnings: tuple[str, ...] = ()  # files that were found but are not used


class Box(NamedTuple):
    """A rectangle in image pixels, right and bottom exclusive; may extend beyond the image."""

    left: int
    top: int
    right: int
    bottom: int


@dataclass(frozen=True)
class Regions:
    """Anomaly-centred sub-images, packed; arrays may be memory-mapped.

    `s` is the stored size: 8/7 of the view's size, to leave room for random crops.
    """

    images: NDArray[np.uint8]  # (n, s, s, 3) RGB
    masks: NDArray[np.uint8]  # (n, s, s), 255 = anomalous, soft at the edges
    image_index: NDArray[np.int64]  # (n,), the sample that each was cropped from, ascending
    boxes: NDArray[np.int64]  # (n, 4) left, top, right, bottom in image pixels
    areas: NDArray[np.int64]  # (n,), mask pixels in the box at the image's resolution
    scores: NDArray[np.float64]  # (n,), highest normalised anomaly score in the box
    image_sizes: NDArray[np.int64]  # (n_samples, 2) height, width
    name: str = ""  # of the cache entry, determined by the content

    def __len__(self) -> int:
        return len(self.areas)


@dataclass(frozen=True)
class Scores:
    """Agreement of a clustering with the truth; each 1 at best."""

    nmi: float  # normalised mutual information, arithmetic mean
    ari: float  # adjusted Rand index
    f1: float  # micro-averaged, which is the accuracy after Hungarian matching
