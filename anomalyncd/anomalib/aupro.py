"""AUPRO of maps, as anomalib measures it."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of what anomalib imports
    from anomalib.data import ImageBatch
    from anomalib.metrics import AUPRO


def aupro(
    maps: Iterable[NDArray[np.uint8]], masks: Iterable[NDArray | None], size: int = 256
) -> float | None:
    """Area under the per-region overlap curve up to a false positive rate of 0.3; 1 at best.

    Maps and masks are read one after the other and compared at size × size, which takes about
    60 bytes a pixel in the end: 0.6 GB for 150 images.

    Args:
        maps: of a category, (h, w) each, larger = more anomalous.
        masks: their truth, (h, w) each, non-zero = defect; None for a defect-free image.
        size: height and width, in pixels.

    Returns:
        None where no mask has a defect.
    """
    metric = AUPRO(fields=["anomaly_map", "gt_mask"])
    metric.sync_on_compute = False  # under torchrun others never come here
    any_defect = False
    for scores, mask in zip(maps, masks, strict=True):
        truth = np.zeros((size, size), np.uint8)
        if mask is not None:
            # Any share of a pixel counts: a small defect must not vanish as its mask shrinks.
            share = cv2.resize(
                (mask != 0).astype(float), (size, size), interpolation=cv2.INTER_AREA
            )
            truth = (share > 0).astype(np.uint8)
        any_defect |= bool(truth.any())
        resized = cv2.resize(scores, (size, size), interpolation=cv2.INTER_LINEAR)
        metric.update(
            ImageBatch(
                image=torch.empty(1, 3, 0, 0),  # not looked at
                anomaly_map=torch.from_numpy(resized)[None],
                gt_mask=torch.from_numpy(truth)[None],
            )
        )
    return float(metric.compute()) if any_defect else None
