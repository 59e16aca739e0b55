"""Mask-guided attention over a stock timm Vision Transformer (paper 3.3, reference section 6).

In the last `masked_blocks` blocks the class token sees only itself and the patches that the mask
keeps, so that it describes the defect and not the product around it. The blocks themselves are
timm's; only the order in which their parts are called is ours.
"""

from __future__ import annotations

from typing import cast, get_args

import torch
import torch.nn.functional as F
from timm.layers import Attention
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from anomalyncd.types import KeepPool, MaskOn


class MaskGuidedViT(nn.Module):
    """A timm ViT whose masked tokens attend inside the mask in its last blocks.

    Only the last block's weights train; everything else is frozen and runs without a graph.

    Args:
        vit: a timm `VisionTransformer` with a class token. Register tokens are neither class token
            nor patches: a masked query does not see them, since they summarise the whole image.
        masked_blocks: how many blocks, counted from the last, are masked.
        mask_on: whose queries are masked (the paper's ablation); `class_token` is the method.
        keep_pool, keep_threshold: a patch is kept where its pooled mask reaches the threshold. The
            release's is average and 0.5, by which a defect thinner than half a patch keeps nothing;
            `max` or a lower threshold is the cure.

    Raises:
        ValueError: no class token, a block that is not timm's plain `Block`, or settings out of
            range.
    """

    def __init__(
        self,
        vit: VisionTransformer,
        masked_blocks: int = 9,
        mask_on: MaskOn = "class_token",
        *,
        keep_pool: KeepPool = "average",
        keep_threshold: float = 0.5,
    ) -> None:
        super().__init__()
        _require_plain_vit(vit)
        if not 0 <= masked_blocks <= len(vit.blocks):
            raise ValueError(f"masked_blocks={masked_blocks}: expected 0 to {len(vit.blocks)}")
        if mask_on not in get_args(MaskOn):
            raise ValueError(f"mask_on={mask_on}: expected one of {', '.join(get_args(MaskOn))}")
        self.vit = vit
        self.first_masked = len(vit.blocks) - masked_blocks
        self.mask_on = mask_on
        self.keep_pool = keep_pool
        self.keep_threshold = keep_threshold
        vit.requires_grad_(False)
        self.last_block.requires_grad_(True)

    @property
    def blocks(self) -> list[Block]:
        return [cast(Block, block) for block in self.vit.blocks]  # the constructor has checked it

    @property
    def last_block(self) -> Block:
        return self.blocks[-1]

    @property
    def width(self) -> int:
        return self.vit.embed_dim

    def forward(self, images: Tensor, masks: Tensor) -> Tensor:
        """Describe each image's masked part.

        Args:
            images: (b, 3, h, w), normalised as the backbone expects.
            masks: (b, 1, h, w) in [0, 1], 1 = anomalous.

        Returns:
            (b, width) class tokens after the final norm.
        """
        visible = self.visible_keys(masks)
        return self.describe(self.trunk(images, visible), visible)

    def visible_keys(self, masks: Tensor) -> Tensor:
        """Which tokens a masked query may attend to: (b, 1, 1, n), for all heads and queries."""
        size = self.vit.patch_embed.patch_size
        pool = F.avg_pool2d if self.keep_pool == "average" else F.max_pool2d
        kept = pool(masks, size).flatten(1) >= self.keep_threshold  # (b, patches)
        prefix = kept.new_zeros(len(kept), self.vit.num_prefix_tokens)
        prefix[:, 0] = True  # the class token always sees itself: no softmax over nothing
        return torch.cat([prefix, kept], dim=1)[:, None, None]

    @torch.no_grad()
    def trunk(self, images: Tensor, visible: Tensor) -> Tensor:
        """Run the frozen part, all blocks but the last: (b, n, width) tokens."""
        x = self.vit.patch_embed(images)
        x = self.vit.norm_pre(self.vit._pos_embed(x))
        for index, block in enumerate(self.blocks[:-1]):
            x = self._block(block, x, visible if index >= self.first_masked else None)
        return x

    def describe(self, tokens: Tensor, visible: Tensor) -> Tensor:
        """Run the last block and the final norm for the class token alone: (b, width).

        Nothing else leaves the network, so one query gives the same numbers as all of them.
        """
        masked = self.first_masked < len(self.vit.blocks)
        x = self._block(self.last_block, tokens, visible if masked else None, class_only=True)
        return self.vit.norm(x).squeeze(1)

    def _block(
        self, block: Block, x: Tensor, visible: Tensor | None, class_only: bool = False
    ) -> Tensor:
        if (visible is None or self.mask_on == "none") and not class_only:
            return block(x)
        attended = self._attention(block, block.norm1(x), visible, class_only)
        if class_only:
            x = x[:, :1]
        x = x + block.drop_path1(block.ls1(attended))
        return x + block.drop_path2(block.ls2(block.mlp(block.norm2(x))))

    def _attention(
        self, block: Block, x: Tensor, visible: Tensor | None, class_only: bool
    ) -> Tensor:
        """Attention in which class token and patches may see different keys.

        Two fused calls instead of one with an (n, n) mask: nothing of size n x n is ever held.
        """
        attn = cast(Attention, block.attn)
        queries = x[:, :1] if class_only else x
        d = attn.attn_dim
        weight, bias = attn.qkv.weight, attn.qkv.bias
        q = F.linear(queries, weight[:d], None if bias is None else bias[:d])
        k, v = F.linear(x, weight[d:], None if bias is None else bias[d:]).chunk(2, dim=-1)
        q, k, v = (t.unflatten(-1, (attn.num_heads, -1)).transpose(1, 2) for t in (q, k, v))
        q, k = attn.q_norm(q), attn.k_norm(k)

        class_sees = visible if self.mask_on in ("class_token", "all_tokens") else None
        patch_sees = visible if self.mask_on in ("patch_tokens", "all_tokens") else None
        out = F.scaled_dot_product_attention(q[:, :, :1], k, v, class_sees)
        if not class_only:
            rest = F.scaled_dot_product_attention(q[:, :, 1:], k, v, patch_sees)
            out = torch.cat([out, rest], dim=2)

        out = attn.norm(out.transpose(1, 2).flatten(2))
        if attn.gate is not None:
            out = out * attn.gate(queries).sigmoid()
        return attn.proj(out)


def _require_plain_vit(vit: VisionTransformer) -> None:
    if not isinstance(vit, VisionTransformer) or vit.cls_token is None:
        raise ValueError(
            f"{type(vit).__name__}: expected a timm VisionTransformer with a class token "
            "(DINO, DINOv2, DeiT, AugReg, CLIP image towers)"
        )
    for block in vit.blocks:
        if type(block) is not Block or not isinstance(block.attn, Attention):
            raise ValueError(
                f"{type(vit).__name__} has blocks of type {type(block).__name__}: expected timm's "
                "plain Block, whose attention can be masked"
            )
