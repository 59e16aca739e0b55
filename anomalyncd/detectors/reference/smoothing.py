"""From scores of patches to a map."""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from anomalyncd.data.levels import smoothed


def smooth_map(scores: Tensor, grid: tuple[int, int], map_size: int) -> NDArray[np.float32]:
    """Enlarge scores to a map, and smooth it as PatchCore does: 4 pixels at 224.

    Args:
        scores: (h · w,).
        grid: (h, w).
        map_size: side of the map.

    Returns:
        (map_size, map_size).
    """
    patches, size = scores.view(1, 1, *grid).float(), (map_size, map_size)
    enlarged = F.interpolate(patches, size, mode="bilinear")[0, 0].cpu().numpy()
    return smoothed(enlarged)
