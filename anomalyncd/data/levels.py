"""From the scores of patches to levels of 8 bits, on arrays alone: without torch too."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray


def smoothed(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """A square map of any size, smoothed as PatchCore does: 4 pixels at 224."""
    return cv2.GaussianBlur(scores, (0, 0), len(scores) / 56).astype(np.float32)


def on_levels(scores: Any, lowest: float, highest: float) -> Any:
    """The scores of an array or tensor on the scale 0 … 255, to be rounded down to integers.

    Args:
        scores: of any shape and numeric type.
        lowest: the score that becomes 0; lower ones do too.
        highest: the score that becomes 255; higher ones do too.

    Returns:
        The same shape, float64.
    """
    # A range so small that its reciprocal overflows counts as constant.
    scale = 255 / (highest - lowest) if highest - lowest > 255 * np.finfo(float).tiny else 0.0
    precise = scores.astype(float) if isinstance(scores, np.ndarray) else scores.double()
    # The epsilon keeps the highest score at 255 if rounding makes the product slightly smaller.
    return ((precise - lowest) * scale + 1e-9).clip(0, 255)
