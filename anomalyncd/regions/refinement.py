"""A mask's border where the image has its edge: maps are soft blobs, wider than the defect.

GrabCut (Rother et al., SIGGRAPH 2004), in OpenCV's version: colours of the sure foreground and the
sure background are modelled, and a minimal cut between them follows the image's edges. The map
says what is sure.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

_MARGIN = 0.05  # background seen around the border, as a share of the map's longer side
_LEAST, _MOST = 0.3, 2.0  # of the mask's area: a cut beyond them has followed something else


def refine(
    image: NDArray[np.uint8],
    core: NDArray[np.bool_],
    mask: NDArray[np.bool_],
    extent: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    """Move a mask's border to an edge of the image, within what the map leaves open.

    Args:
        image: (h, w, 3), at the map's size.
        core: (h, w), sure to be defective; within `mask`.
        mask: (h, w), what is thought to be defective.
        extent: (h, w), outside of which nothing is defective; contains `mask`.

    Returns:
        (h, w), containing `core` and within `extent`; `mask` itself where the image shows no
        border: nothing is open, or the cut is much smaller or larger than it.
    """
    if (core == extent).all() or extent.all():
        return mask
    height, width = mask.shape
    margin = max(round(_MARGIN * max(height, width)), 1)
    left, top, wide, high = cv2.boundingRect(extent.view(np.uint8))
    rows = slice(max(top - margin, 0), min(top + high + margin, height))
    columns = slice(max(left - margin, 0), min(left + wide + margin, width))
    seeds = np.full(mask.shape, cv2.GC_BGD, np.uint8)
    seeds[extent] = cv2.GC_PR_BGD
    seeds[mask] = cv2.GC_PR_FGD
    seeds[core] = cv2.GC_FGD
    window = np.ascontiguousarray(seeds[rows, columns])
    if (window != cv2.GC_BGD).all():
        return mask
    models = np.zeros((1, 65)), np.zeros((1, 65))
    pixels = np.ascontiguousarray(image[rows, columns])
    cv2.setRNGSeed(0)  # of this thread: the colour models start from drawn pixels
    cv2.grabCut(pixels, window, None, *models, 1, cv2.GC_INIT_WITH_MASK)  # type: ignore[call-overload]
    refined = np.zeros_like(mask)
    refined[rows, columns] = (window == cv2.GC_FGD) | (window == cv2.GC_PR_FGD)
    share = np.count_nonzero(refined) / np.count_nonzero(mask)
    return refined if _LEAST <= share <= _MOST else mask
