"""The whole network: masked image → class token → projection and head logits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn

from anomalyncd.config import AttentionConfig, TrainConfig
from anomalyncd.errors import InputError
from anomalyncd.models.backbone import Backbone
from anomalyncd.models.heads import Heads
from anomalyncd.models.mask_guided_vit import MaskGuidedViT
from anomalyncd.types import MaskedQueries, MaskPooling


class Model(nn.Module):
    """The network of one run.

    Attributes:
        forward_batch: views per forward pass of the frozen blocks. Fewer need less memory on the
            device, and change at most the last digits.
    """

    forward_batch = 64

    def __init__(
        self,
        vit: MaskGuidedViT,
        heads: Heads,
        *,
        n_base: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> None:
        super().__init__()
        self.vit = vit
        self.heads = heads
        self.n_base = n_base  # the first n_base classes are the base set's
        self.mean = mean
        self.std = std

    @property
    def image_size(self) -> int:
        return self.vit.vit.patch_embed.img_size[0]

    def forward(self, images: Tensor, masks: Tensor) -> Tensor:
        """(b, 3, h, w) views and their (b, 1, h, w) masks → (b, width) class tokens."""
        return torch.cat([self.vit(x, mask) for x, mask in self.in_parts(images, masks)])

    def in_parts(self, images: Tensor, masks: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Views and their masks, in parts of at most `forward_batch`."""
        return zip(images.split(self.forward_batch), masks.split(self.forward_batch), strict=True)

    def trainable(self) -> Iterator[tuple[str, nn.Parameter]]:
        return ((name, p) for name, p in self.named_parameters() if p.requires_grad)

    def frozen(self) -> Iterator[tuple[str, nn.Parameter]]:
        return ((name, p) for name, p in self.named_parameters() if not p.requires_grad)


def masked(backbone: Backbone, attention: AttentionConfig) -> MaskGuidedViT:
    """The backbone with masked attention.

    Raises:
        InputError: the backbone cannot be masked, or an attention setting is invalid.
    """
    try:
        return MaskGuidedViT(
            backbone.vit,
            attention.masked_blocks,
            cast(MaskedQueries, attention.masked_queries),  # checked in config.py
            keep_pool=cast(MaskPooling, attention.mask_pooling),
            keep_threshold=attention.mask_threshold,
        )
    except ValueError as error:
        raise InputError(f"backbone, attention: {error}") from error


def build(
    backbone: Backbone, attention: AttentionConfig, train: TrainConfig, *, n_base: int, n_novel: int
) -> Model:
    """Add new heads to a backbone.

    Raises:
        InputError: the backbone cannot be masked, or an attention setting is invalid.
    """
    vit = masked(backbone, attention)
    heads = Heads(
        vit.width,
        n_base + n_novel,
        n_heads=train.heads,
        hidden=train.hidden,
        bottleneck=train.bottleneck,
    )
    return Model(vit, heads, n_base=n_base, mean=backbone.mean, std=backbone.std)
