"""How much of the image one score of a network looks at, measured by gradients.

Tiles, erosion and regions smaller than that cannot be distinguished by the network: a way to choose
their sizes. EfficientAD's student, for one, sees 33 × 33 pixels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def receptive_field(
    model: Callable[[Tensor], Tensor], side: int = 256, *, channels: int = 3, trials: int = 4
) -> tuple[int, int]:
    """Extent of the input that reaches the output's centre.

    The theoretical receptive field is approached from below: pixels whose gradient is zero in every
    trial (dead ReLUs) are not counted, so a few random inputs are tried.

    Args:
        model: (1, channels, side, side) → (1, c, h, w), differentiable.
        side: of the input in pixels; a field that touches its border is larger than reported.
        channels: of the input.
        trials: random inputs.

    Returns:
        (height, width) in pixels.

    Raises:
        ValueError: the output does not depend on the input.
    """
    stream = torch.Generator().manual_seed(0)
    reached = torch.zeros(side, side, dtype=torch.bool)
    for _ in range(trials):
        x = torch.randn(1, channels, side, side, generator=stream).requires_grad_()
        y = model(x)
        centre = y[0, :, y.shape[2] // 2, y.shape[3] // 2]
        (gradient,) = torch.autograd.grad(centre.sum(), x)
        reached |= gradient[0].ne(0).any(0)
    rows, columns = reached.any(1).nonzero(), reached.any(0).nonzero()
    if not len(rows):
        raise ValueError("the output's centre depends on no pixel; is the model differentiable?")
    return int(rows[-1] - rows[0]) + 1, int(columns[-1] - columns[0]) + 1
