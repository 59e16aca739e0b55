"""The release's mask-guided forward pass, written plainly.

Every token goes through every block, attention is a softmax over an (n, n) matrix that is held
whole, and the mask is added to it as minus infinity.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from timm.layers import Attention
from torch import Tensor

from anomalyncd.models.model import Model


def class_tokens(model: Model, images: Tensor, masks: Tensor) -> Tensor:
    """What `model(images, masks)` returns with `mask_on="class_token"`: (b, width)."""
    vit = model.vit.vit
    x = vit.norm_pre(vit._pos_embed(vit.patch_embed(images)))
    kept = F.avg_pool2d(masks, vit.patch_embed.patch_size).flatten(1) >= 0.5
    n = x.shape[1]
    hidden = torch.zeros(len(x), 1, n, n, device=x.device)
    hidden[:, 0, 0, n - kept.shape[1] :] = torch.where(kept, 0.0, -torch.inf)
    hidden[:, 0, 0, 1 : vit.num_prefix_tokens] = -torch.inf
    for index, block in enumerate(model.vit.blocks):
        attn, is_masked = cast(Attention, block.attn), index >= model.vit.first_masked
        attended = attention(attn, block.norm1(x), hidden, is_masked)
        x = x + block.ls1(attended)
        x = x + block.ls2(block.mlp(block.norm2(x)))
    return vit.norm(x)[:, 0]


def attention(attn: Attention, x: Tensor, hidden: Tensor, masked: bool) -> Tensor:
    """Multi-head attention by two matrix products and a softmax."""
    b, n, width = x.shape
    q, k, v = attn.qkv(x).reshape(b, n, 3, attn.num_heads, -1).permute(2, 0, 3, 1, 4)
    weights = attn.q_norm(q) @ attn.k_norm(k).transpose(-2, -1) * attn.scale
    if masked:
        weights = weights + hidden
    return attn.proj((weights.softmax(-1) @ v).transpose(1, 2).reshape(b, n, width))
