"""Patch features of two depths of a frozen backbone, for detectors that compare patches.

Of the embedded backbone these are two depths of its stem on a fine grid, which alone takes an
eighth of the network's time; of any other Vision Transformer the patch tokens of two blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from anomalyncd.config import BackboneConfig
from anomalyncd.models import backbone, dense_stem, embedded

_DEPTHS = (1 / 2, 1.0)  # of a Vision Transformer's blocks


class PatchFeatures(Protocol):
    """Features of images on a grid of patches."""

    channels: tuple[int, ...]  # of each depth
    weights_hash: str  # of the backbone's stored weights

    def __call__(self, images: Tensor) -> list[Tensor]:
        """(b, 3, s, s) images in [0, 1] → for each depth (b, channels, h, w)."""
        ...


def create(
    config: BackboneConfig, image_size: int, key: str, device: torch.device
) -> PatchFeatures:
    """The features of a backbone for square images of a size.

    Args:
        config: the backbone; its own image size is not used.
        image_size: in pixels, a multiple of the patch.
        key: where the configuration has the backbone, for messages.
        device: where to compute.

    Raises:
        InputError: as `backbone.build`.
    """
    built = backbone.build(replace(config, image_size=image_size), key)
    if config.name == embedded.NAME:
        return _StemFeatures(built, device)
    return _TokenFeatures(built, device)


def create_tokens(
    config: BackboneConfig, image_size: int, key: str, device: torch.device
) -> PatchFeatures:
    """The patch tokens of a backbone's last block, as they are; arguments as of `create`.

    Raises:
        InputError: as `backbone.build`.
    """
    built = backbone.build(replace(config, image_size=image_size), key)
    return _TokenFeatures(built, device, depths=(1.0,), norm=False)


def patch_size(config: BackboneConfig, key: str) -> int:
    """Pixels that image sizes must be a multiple of.

    Raises:
        InputError: as `backbone.build`.
    """
    return int(backbone.build(config, key).vit.patch_embed.patch_size[0])


class _Normalised:
    def __init__(self, built: backbone.Backbone, device: torch.device) -> None:
        self._mean, self._std = (
            torch.tensor(values, device=device).view(3, 1, 1) for values in (built.mean, built.std)
        )
        self._device = device
        self.weights_hash = built.weights_hash

    def _prepare(self, images: Tensor) -> Tensor:
        return (images.to(self._device) - self._mean) / self._std


class _StemFeatures(_Normalised):
    channels: tuple[int, ...] = dense_stem.CHANNELS

    def __init__(self, built: backbone.Backbone, device: torch.device) -> None:
        super().__init__(built, device)
        stem = cast(embedded.Stem, built.vit.patch_embed.proj)
        self._stem: nn.Module = dense_stem.DenseStem(stem).to(device)

    def __call__(self, images: Tensor) -> list[Tensor]:
        return list(self._stem(self._prepare(images)))


class _TokenFeatures(_Normalised):
    def __init__(
        self,
        built: backbone.Backbone,
        device: torch.device,
        depths: Sequence[float] = _DEPTHS,
        *,
        norm: bool = True,
    ) -> None:
        super().__init__(built, device)
        self._vit = built.vit.to(device)
        self._norm = norm
        depth = len(self._vit.blocks)
        self._blocks = sorted({max(1, round(depth * share)) - 1 for share in depths})
        self.channels = (self._vit.embed_dim,) * len(self._blocks)

    def __call__(self, images: Tensor) -> list[Tensor]:
        _, tokens = self._vit.forward_intermediates(
            self._prepare(images), indices=self._blocks, output_fmt="NCHW", norm=self._norm
        )
        return list(tokens)
