"""Hand-made descriptors of an image's cells, instead of a network's tokens.

They need no weights, and suit products in the same position in all pictures, like the demo
product: a cell's position counts as much as its content. Other products need a trained network.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SIDE = 256  # images are resized to squares of this many pixels
CELL = 8  # pixels of a cell
# In standard deviations, chosen on the demo product: the position at the border, and a constant
# that makes the length count, since descriptors are compared by their direction.
_POSITION, _CONSTANT = 3.0, 2.0


def describe(images: Tensor) -> Tensor:
    """Mean colour, darkest and brightest grey, and gradients by direction of each cell.

    Args:
        images: (b, 3, s, s) in [0, 1].

    Returns:
        (b, s / CELL, s / CELL, 9), not negative.
    """
    grey = images.mean(1, keepdim=True)
    smooth = F.avg_pool2d(grey, 2)
    dx = F.pad(smooth.diff(dim=3), (0, 1))
    dy = F.pad(smooth.diff(dim=2), (0, 0, 0, 1))
    gradients = torch.cat((dx, -dx, dy, -dy), dim=1).clamp(min=0)
    parts = (
        F.avg_pool2d(images, CELL),
        F.avg_pool2d(gradients, CELL // 2),
        F.max_pool2d(grey, CELL),
        1 - F.max_pool2d(1 - grey, CELL),
    )
    return torch.cat(parts, dim=1).permute(0, 2, 3, 1)


def standardise(descriptions: Tensor) -> Tensor:
    """Standardise all values over all images, and append the position of the cell.

    Args:
        descriptions: (n, h, w, d).

    Returns:
        (n, h, w, d + 3).
    """
    n, h, w, _ = descriptions.shape
    scale, mean = torch.std_mean(descriptions, dim=(0, 1, 2))
    z = (descriptions - mean) / scale.clamp(min=1e-6)
    rows, columns = torch.linspace(-1, 1, h), torch.linspace(-1, 1, w)
    place = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1) * _POSITION
    constant = torch.full((n, h, w, 1), _CONSTANT)
    return torch.cat((z, place.expand(n, h, w, 2), constant), dim=-1)
