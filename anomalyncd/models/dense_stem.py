"""The embedded backbone's stem at a stride of 8 pixels, for detectors that locate defects.

The last convolution with a stride loses it, and those after it are dilated instead ("à trous"), so
that every weight keeps its meaning and the grid is twice as fine.
"""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor, nn

from anomalyncd.models.embedded import Convolution, InvertedResidual, Stem

STRIDE = 8  # pixels between two places of the grid
CHANNELS = (192, 576)  # of the two depths
_FIRST, _LAST = 6, 12  # blocks whose filtered, expanded channels are the features


class DenseStem(nn.Module):
    """Features of two depths: what the depthwise filters of two blocks give, after ReLU6.

    The expanded channels find defects better than the narrow ones between blocks, which the
    network adds up (PatchCore on MobileNetV2 uses the same).
    """

    def __init__(self, stem: Stem) -> None:
        super().__init__()
        self.first = copy.deepcopy(stem.first)
        blocks = copy.deepcopy(stem.blocks)
        for number in range(_FIRST, _LAST + 1):
            filters = cast(Convolution, cast(InvertedResidual, blocks[number]).layers[1]).conv
            dilation = 1 if number == _FIRST else 2
            filters.stride, filters.dilation, filters.padding = (
                (1, 1),
                (dilation,) * 2,
                (dilation,) * 2,
            )
        self.before = nn.Sequential(*blocks[:_FIRST])
        self.rest = nn.ModuleList(blocks[_FIRST : _LAST + 1])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(b, 3, s, s) normalised images → (b, 192, s/8, s/8) and (b, 576, s/8, s/8)."""
        x = self.before(self.first(x.contiguous(memory_format=torch.channels_last)))
        shallow, x = _with_filtered(cast(InvertedResidual, self.rest[0]), x)
        deep = shallow
        for block in self.rest[1:]:
            deep, x = _with_filtered(cast(InvertedResidual, block), x)
        return shallow, deep


def _with_filtered(block: InvertedResidual, x: Tensor) -> tuple[Tensor, Tensor]:
    """The block's filtered, expanded channels, and what it passes on."""
    expand, depthwise, project = block.layers
    filtered = depthwise(expand(x))
    out = project(filtered)
    return filtered, x + out if block.skips else out
