"""Distillation of the embedded backbone: it learns to predict the teacher's features.

First its stem learns block by block: each block is given what the teacher's block before it says,
and learns what the teacher's own block says of that. Fourteen shallow problems at once need far
fewer pictures than one deep one.

Then the transformer learns. Dense: every patch token predicts the teacher's features of its patch.
Global: the class token, which sees only the masked patches as in the method, is the mean of those
features over the mask. The teacher looks at the plain picture, the student at a turned and
discoloured one, so that the student's answer is the mean over such changes: invariance at no cost.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
import torch.nn.functional as F
from timm.layers import Attention, Mlp
from torch import Tensor, nn

from anomalyncd.models import embedded
from anomalyncd.models.mask_guided_vit import MaskGuidedViT
from scripts.pretraining.teacher import MobileNetV2

TERMS = ("class", "dense")  # of the loss: 1 − cosine, and the share of variance not explained


class Targets(nn.Module):
    """The teacher's features, standardised, in the student's width.

    A fixed turn spreads them evenly over more numbers than they have and keeps all distances, so
    that the class token itself, without a layer in between, has the teacher's geometry.
    """

    mean: Tensor
    turn: Tensor

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("turn", torch.zeros(channels, width))

    @torch.no_grad()
    def fit(self, teacher: MobileNetV2, pictures: Iterable[Tensor]) -> None:
        """Standardise by the teacher's features of batches (b, 3, h, w) in [0, 1]."""
        rows = torch.cat([_features(teacher, x).flatten(2).mT.flatten(0, 1) for x in pictures])
        self.mean.copy_(rows.mean(0))
        chance = torch.Generator().manual_seed(0)
        basis = torch.linalg.qr(torch.randn(self.turn.T.shape, generator=chance)).Q.T
        # Total variance 1, so that squared errors are shares of it.
        self.turn.copy_(basis / rows.std(0)[:, None] / len(basis) ** 0.5)

    @torch.no_grad()
    def forward(self, teacher: MobileNetV2, pictures: Tensor) -> Tensor:
        """Pictures (b, 3, h, w) in [0, 1] → (b, h/16, w/16, width)."""
        return (_features(teacher, pictures).permute(0, 2, 3, 1) - self.mean) @ self.turn


class Student(nn.Module):
    """The embedded network, and a layer that is used only in training."""

    def __init__(self) -> None:
        super().__init__()
        self.vit = MaskGuidedViT(embedded.create(norm=True, dynamic=True))
        self.vit.requires_grad_(True)  # the method would train the last block alone
        self.dense = nn.Linear(self.vit.width, self.vit.width)

    @property
    def stem(self) -> embedded.Stem:
        return cast(embedded.Stem, self.vit.vit.patch_embed.proj)

    def settle(self, targets: Targets) -> None:
        """Freeze the stem; initialise the rest so that its tokens, the teacher's features, pass."""
        self.stem.requires_grad_(False)
        for block in self.vit.blocks:
            for last in (cast(Attention, block.attn).proj, cast(Mlp, block.mlp).fc2):
                nn.init.zeros_(last.weight)
        scale = self.vit.width**0.5  # to variance 1 in each number
        with torch.no_grad():
            self.stem.to_tokens.weight.copy_(scale * targets.turn.T[..., None, None])
            cast(Tensor, self.stem.to_tokens.bias).copy_(-scale * targets.mean @ targets.turn)
            self.dense.weight.copy_(torch.eye(self.vit.width) / scale)
            nn.init.zeros_(self.dense.bias)

    def train(self, mode: bool = True) -> Student:
        super().train(mode)
        if not self.stem.to_tokens.weight.requires_grad:
            self.stem.eval()  # its normalisation stays as it was learned
        return self

    def forward(self, images: Tensor, masks: Tensor, targets: Tensor) -> Tensor:
        """The terms of the loss, (len(TERMS),).

        Args:
            images: (b, 3, h, w), normalised.
            masks: (b, 1, h, w) in [0, 1].
            targets: (b, h/16, w/16, width), of the teacher.
        """
        tokens = self.vit.all_tokens(images, self.vit.attention_mask(masks))
        dense = targets.flatten(1, 2)
        share = F.avg_pool2d(masks, embedded.PATCH).flatten(1)[..., None]
        whole = (dense * share).sum(1) / share.sum(1)
        return torch.stack(
            [
                (1 - F.cosine_similarity(tokens[:, 0], whole)).mean(),
                (self.dense(tokens[:, 1:]) - dense).square().sum(-1).mean(),
            ]
        )


def imitation(
    stem: embedded.Stem, teacher: MobileNetV2, pictures: Tensor, *, chained: bool
) -> Tensor:
    """Share of the teacher's variance that the stem does not explain, (blocks,); 1 = all of it.

    Args:
        stem: block by block like the teacher.
        teacher: read as far as the stem goes.
        pictures: (b, 3, h, w) in [0, 1].
        chained: whether the input of a block is the output of the stem's block before it, so that
            its errors are compensated, or that of the teacher's.
    """
    unexplained = []
    target = own = (pictures - teacher.mean) / teacher.std
    blocks: list[nn.Module] = [stem.first, *stem.blocks]
    for block, source in zip(blocks, [teacher.stem, *teacher.blocks], strict=False):
        with torch.no_grad():
            answer = source(target)
            skips = getattr(block, "skips", False)
            spread = (answer - target if skips else answer).var((0, 2, 3))  # what is to be learned
            target = answer
        own = block(own)
        error = (own - target).square().mean((0, 2, 3))
        unexplained.append((error / (spread + 0.01 * spread.mean())).mean())
        if not chained:
            own = target
    return torch.stack(unexplained)


def disturbed(pictures: Tensor, stream: torch.Generator) -> Tensor:
    """Pictures (b, 3, h, w) in [0, 1] with other light and colours, and noise; normalised."""

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(len(pictures), *shape, 1, 1, generator=stream) * (high - low) + low

    x = pictures.clamp_min(1e-4) ** uniform(-0.4, 0.4, 1).exp()
    x = (x - 0.5) * uniform(-0.3, 0.3, 1).exp() + 0.5 + uniform(-0.1, 0.1, 1)
    x = x * uniform(-0.15, 0.15, 3).exp()
    x = x + torch.randn(x.shape, generator=stream) * uniform(0, 0.04, 1)
    return normalised(x.clamp(0, 1))


def normalised(pictures: Tensor) -> Tensor:
    mean, std = (pictures.new_tensor(v)[:, None, None] for v in (embedded.MEAN, embedded.STD))
    return (pictures - mean) / std


def turned(x: Tensor, turn: int) -> Tensor:
    """One of the 8 flips and quarter turns of the last two axes."""
    x = x.rot90(turn % 4, (-2, -1))
    return x.flip(-1) if turn >= 4 else x


def _features(teacher: MobileNetV2, pictures: Tensor) -> Tensor:
    return teacher.stride16(pictures)[0]
