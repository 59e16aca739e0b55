"""The backbone inside the package: a small ViT of our own, pretrained on drawn images.

Its weights are stored beside this file; the model card is docs/embedded_backbone.md. It was trained
by `scripts/pretrain_backbone.py`.
"""

from __future__ import annotations

import copy
import hashlib
from importlib import resources
from typing import Any, cast

import torch
import torch.nn.functional as F
from safetensors.torch import load as decode
from timm.layers import resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from anomalyncd.errors import InputError

NAME = "embedded"  # its `backbone.name`
PATCH = 16
MEAN = STD = (0.5, 0.5, 0.5)

_FILE = "embedded.safetensors"
_SHA256 = "335c78719c04c6d25b462d5d752cc40dcffdcb93571225381cf61f798935078b"
_SIDE = 224  # of the grid that the position embeddings belong to


class Convolution(nn.Module):
    """Convolution, batch normalisation during training, and ReLU6 unless `linear`.

    With a stride it pads at the right and bottom, like TensorFlow and so the teacher.
    """

    def __init__(
        self,
        before: int,
        after: int,
        kernel: int = 1,
        stride: int = 1,
        *,
        depthwise: bool = False,
        linear: bool = False,
        norm: bool = False,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            before,
            after,
            kernel,
            stride,
            padding=kernel // 2 if stride == 1 else 0,
            groups=before if depthwise else 1,
            bias=not norm,
        )
        self.norm = nn.BatchNorm2d(after) if norm else nn.Identity()
        self.linear = linear

    def forward(self, x: Tensor) -> Tensor:
        if self.conv.stride[0] == 2:
            x = F.pad(x, (0, 1, 0, 1))
        x = self.norm(self.conv(x))
        return x if self.linear else F.relu6(x, inplace=True)

    def fold(self) -> None:
        """Fold the normalisation into the convolution, after training."""
        if isinstance(self.norm, nn.BatchNorm2d):
            self.conv = nn.utils.fuse_conv_bn_eval(self.conv.eval(), self.norm.eval())
            self.norm = nn.Identity()


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project (Sandler et al. 2018)."""

    def __init__(
        self, before: int, after: int, expansion: int, stride: int, *, norm: bool = False
    ) -> None:
        super().__init__()
        inner = before * expansion
        layers = [] if expansion == 1 else [Convolution(before, inner, norm=norm)]
        self.layers = nn.Sequential(
            *layers,
            Convolution(inner, inner, 3, stride, depthwise=True, norm=norm),
            Convolution(inner, after, linear=True, norm=norm),
        )
        self.skips = stride == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.skips else self.layers(x)


class Stem(nn.Module):
    """Patches by a small convolutional network instead of one large convolution.

    Convolutions learn local features from far fewer images (Xiao et al. 2021, "Early convolutions
    help transformers see better"). Its shape is that of MobileNetV2 down to stride 16, so that each
    block can learn from the teacher's block (`scripts/pretraining`).
    """

    # expansion, channels, repeats, stride of the first
    STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1))

    def __init__(self, width: int, *, norm: bool = False) -> None:
        super().__init__()
        self.first = Convolution(3, 32, 3, 2, norm=norm)
        blocks: list[nn.Module] = []
        before = 32
        for expansion, channels, repeats, stride in self.STAGES:
            for repeat in range(repeats):
                first = stride if repeat == 0 else 1
                blocks.append(InvertedResidual(before, channels, expansion, first, norm=norm))
                before = channels
        self.blocks = nn.Sequential(*blocks)
        self.to_tokens = nn.Conv2d(before, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        return self.to_tokens(self.blocks(self.first(x)))


def create(side: int = _SIDE, *, norm: bool = False, dynamic: bool = False) -> VisionTransformer:
    """The network with random weights, for images of (side, side).

    Args:
        side: in pixels, a multiple of the patch.
        norm: batch normalisation in the stem, for training.
        dynamic: take images of any size, as in pretraining.
    """
    vit = VisionTransformer(
        img_size=side,
        patch_size=PATCH,
        embed_dim=192,
        depth=12,
        num_heads=3,
        num_classes=0,
        dynamic_img_size=dynamic,
    )
    vit.patch_embed.proj = Stem(vit.embed_dim, norm=norm)
    cast(Any, vit).pretrained_cfg = {"mean": MEAN, "std": STD}  # where timm stores it
    return vit


def load_weights(vit: VisionTransformer) -> str:
    """Load the package's weights; position embeddings are resampled to the network's grid.

    Returns:
        The hash of the stored weights.

    Raises:
        InputError: the file is damaged.
    """
    stored = resources.files("anomalyncd.models").joinpath(_FILE).read_bytes()
    if hashlib.sha256(stored).hexdigest() != _SHA256:
        raise InputError(f"{_FILE} in the package is damaged; install anomalyncd again")
    weights = {name: tensor.float() for name, tensor in decode(stored).items()}
    weights["pos_embed"] = resample_abs_pos_embed(
        weights["pos_embed"], list(vit.patch_embed.grid_size)
    )
    vit.load_state_dict(weights)
    return _SHA256


def as_shipped(vit: VisionTransformer) -> dict[str, Tensor]:
    """The content of the file: half-precision weights, with the stem's normalisation folded in."""
    vit = copy.deepcopy(vit)
    for module in vit.modules():
        if isinstance(module, Convolution):
            module.fold()
    return {name: t.to(torch.float16).contiguous() for name, t in vit.state_dict().items()}
