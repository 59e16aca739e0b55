"""Hand-made descriptions of an image's cells, in place of a network's tokens.

They need no weights, and serve products that lie alike in all pictures, as the embedded one does:
where a cell is counts as much as what it shows. A product in any pose needs a trained network.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SIDE = 256  # pixels of the square that images are made
CELL = 8  # pixels of a cell
# In standard deviations, chosen on the embedded product: of a position at the border, and of the
# constant that lets length matter, since descriptions are compared by their direction.
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
    """Bring all numbers to one scale, over all images, and append where the cell is.

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
