"""Mask-guided attention over an unmodified timm Vision Transformer (paper section 3.3).

In the last `masked_blocks` blocks the class token sees only itself and the patches that the mask
keeps, so that it describes the defect and not the product around it. The blocks are timm's own;
only the calls of their parts are arranged differently.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast, get_args

import torch
import torch.nn.functional as F
from timm.layers import Attention
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from anomalyncd.types import MaskedQueries, MaskPooling

# Tokens whose activations fit in a CPU's cache. Measured time per token with ViT-S/16: groups of
# 1,600 take 0.6 of groups of 12,800, and 800 take 0.94 of 1,600 (0.87 with the embedded backbone).
_TOKENS_IN_CACHE = 800


class MaskGuidedViT(nn.Module):
    """A timm ViT whose masked tokens attend inside the mask in its last blocks.

    Only the last block's weights train; everything else is frozen and runs without gradients.

    Args:
        vit: a timm `VisionTransformer` with a class token. A masked query does not see
            register tokens, since they summarise the whole image.
        masked_blocks: how many blocks, counted from the last, are masked.
        mask_on: whose queries are masked (the paper's ablation); `class_token` is the method.
        keep_pool, keep_threshold: a patch is kept where its pooled mask reaches the threshold. The
            release uses average and 0.5, so a defect thinner than half a patch keeps no patch; with
            `max` or a lower threshold it keeps some.

    Raises:
        ValueError: no class token, a block that is not timm's plain `Block`, or settings out of
            range.

    Example:
        >>> vit = VisionTransformer(
        ...     img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=3, num_classes=0
        ... )
        >>> network = MaskGuidedViT(vit, masked_blocks=1)
        >>> network(torch.rand(2, 3, 32, 32), torch.ones(2, 1, 32, 32)).shape
        torch.Size([2, 24])
    """

    def __init__(
        self,
        vit: VisionTransformer,
        masked_blocks: int = 9,
        mask_on: MaskedQueries = "class_token",
        *,
        keep_pool: MaskPooling = "average",
        keep_threshold: float = 0.5,
    ) -> None:
        super().__init__()
        _require_plain_vit(vit)
        if not 0 <= masked_blocks <= len(vit.blocks):
            raise ValueError(f"masked_blocks={masked_blocks}: expected 0 to {len(vit.blocks)}")
        if mask_on not in get_args(MaskedQueries):
            raise ValueError(
                f"mask_on={mask_on}: expected one of {', '.join(get_args(MaskedQueries))}"
            )
        self.vit = vit
        self.first_masked = len(vit.blocks) - masked_blocks
        self.mask_on = mask_on
        self.keep_pool = keep_pool
        self.keep_threshold = keep_threshold
        self.precision = torch.float32  # of the frozen blocks
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
        """Compute the class token of each image's masked part.

        Args:
            images: (b, 3, h, w), normalised as the backbone expects.
            masks: (b, 1, h, w) in [0, 1], 1 = anomalous.

        Returns:
            (b, width) class tokens after the final norm.
        """
        visible = self.attention_mask(masks)
        if images.is_cuda:  # counting kept patches would make the host wait
            return self.class_token(self.frozen_blocks(images, visible), visible)
        return self.class_token(*padded(*self.visible_tokens(images, visible)))

    def attention_mask(self, masks: Tensor) -> Tensor:
        """Which tokens a masked query may attend to: (b, 1, 1, n), for all heads and queries."""
        size = self.vit.patch_embed.patch_size
        pool = F.avg_pool2d if self.keep_pool == "average" else F.max_pool2d
        kept = pool(masks, size).flatten(1) >= self.keep_threshold  # (b, patches)
        prefix = kept.new_zeros(len(kept), self.vit.num_prefix_tokens)
        prefix[:, 0] = True  # the class token always sees itself: no softmax over nothing
        return torch.cat([prefix, kept], dim=1)[:, None, None]

    @torch.no_grad()
    def frozen_blocks(self, images: Tensor, visible: Tensor) -> Tensor:
        """Run the frozen part, all blocks but the last: (b, n, width) tokens."""
        with self._frozen_precision(images):
            return self._run(self.blocks[:-1], self._embed(images), visible).float()

    @torch.no_grad()
    def visible_tokens(self, images: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
        """Run the frozen part, returning only tokens that the last block's class token sees.

        The last frozen block answers only for them. On a CPU, images go through in groups whose
        activations stay in its cache, those of similar count together.

        Returns:
            (total, width) tokens, image after image and the class token first, and how many there
            are of each image, (b,) int64. `padded` puts them side by side.
        """
        seen = self._visible(visible)
        counts = seen.sum(-1)
        tokens = images.new_empty(int(counts.sum()), self.width)
        starts = counts.cumsum(0) - counts
        n = visible.shape[-1]
        size = len(images) if images.is_cuda else max(1, _TOKENS_IN_CACHE // n)
        with self._frozen_precision(images):
            for group in counts.argsort().split(size):
                most = int(counts[group].max())
                kept_first = (
                    seen[group].to(torch.uint8).argsort(dim=-1, descending=True, stable=True)
                )
                x = self._run(
                    self.blocks[:-1],
                    self._embed(images[group]),
                    visible[group],
                    kept_first[:, :most] if int(counts[group].min()) < n else None,
                )
                places, real = _places(starts[group], counts[group], most)
                tokens[places[real]] = x[real].float()
        return tokens, counts

    def _visible(self, visible: Tensor) -> Tensor:
        """Which of the (b, 1, 1, n) keys the class token sees in the last block: (b, n)."""
        kept = visible[:, 0, 0]
        return kept if self._class_is_masked(len(self.blocks) - 1) else torch.ones_like(kept)

    def _class_is_masked(self, index: int) -> bool:
        return index >= self.first_masked and self.mask_on in ("class_token", "all_tokens")

    def _embed(self, images: Tensor) -> Tensor:
        return self.vit.norm_pre(self.vit._pos_embed(self.vit.patch_embed(images)))

    def _frozen_precision(self, images: Tensor) -> torch.autocast:
        lower = self.precision != torch.float32
        return torch.autocast(images.device.type, self.precision, enabled=lower)

    def all_tokens(self, images: Tensor, visible: Tensor) -> Tensor:
        """Every token after the final norm, (b, n, width), with gradients: for pretraining."""
        return self.vit.norm(self._run(self.blocks, self._embed(images), visible))

    @torch.no_grad()
    def mask_means(self, images: Tensor, masks: Tensor, after: Sequence[int]) -> Tensor:
        """What the pretrained network says of the masked part, at several depths.

        Args:
            images: (b, 3, h, w), normalised as the backbone expects.
            masks: (b, 1, h, w) in [0, 1], 1 = anomalous. An empty one counts as all of the image.
            after: ascending indices of blocks.

        Returns:
            (b, len(after) + 1, width): the patch tokens after each of these blocks, averaged with
            their share of the mask as weight, then the class token after the final norm.
        """
        visible = self.attention_mask(masks)
        x, means = self._embed(images), []
        for index, block in enumerate(self.blocks):
            x = self._block(block, x, visible if self._is_masked(index) else None, None)
            if index in after:
                means.append(self._mean_under(masks, x))
        return torch.stack([*means, self.vit.norm(x)[:, 0]], dim=1)

    @torch.no_grad()
    def early_mean(self, images: Tensor, masks: Tensor, blocks: int) -> Tensor:
        """As `mask_means` after the first so many blocks, without computing the others: (b, width).

        No training changes it, as long as `blocks` leaves out the last one.
        """
        visible = self.attention_mask(masks)
        return self._mean_under(
            masks, self._run(self.blocks[:blocks], self._embed(images), visible)
        )

    def _mean_under(self, masks: Tensor, tokens: Tensor) -> Tensor:
        """The mean of an image's patch tokens, by their share of the mask: (b, width)."""
        share = F.avg_pool2d(masks, self.vit.patch_embed.patch_size).flatten(1)
        share = torch.where(share.sum(1, keepdim=True) > 0, share, torch.ones_like(share))
        share = share / share.sum(1, keepdim=True)
        return torch.einsum("bp,bpd->bd", share, tokens[:, self.vit.num_prefix_tokens :])

    def _is_masked(self, index: int) -> bool:
        return index >= self.first_masked and self.mask_on != "none"

    def _run(
        self, blocks: Sequence[Block], x: Tensor, visible: Tensor, rows: Tensor | None = None
    ) -> Tensor:
        """Run consecutive blocks from the network's first on; the last computes only `rows`."""
        for index, block in enumerate(blocks):
            last = index == len(blocks) - 1
            x = self._block(
                block, x, visible if self._is_masked(index) else None, rows if last else None
            )
        return x

    def class_token(self, tokens: Tensor, visible: Tensor) -> Tensor:
        """Run the last block and the final norm for the class token only: (b, width).

        Other tokens are not used, so a single query gives the same result.

        Args:
            tokens: (b, k, width) after the frozen blocks, the class token first.
            visible: (b, 1, 1, k), which of them a masked query may attend to.
        """
        block = self.last_block
        shown = visible if self._class_is_masked(len(self.blocks) - 1) else None
        if isinstance(cast(Attention, block.attn).k_norm, nn.Identity):
            x = _finish(block, tokens[:, :1], self._class_attention(block, tokens, shown))
        else:
            first = torch.zeros(len(tokens), 1, dtype=torch.long, device=tokens.device)
            x = self._block(block, tokens, shown, first)
        return self.vit.norm(x).squeeze(1)

    def _block(
        self, block: Block, x: Tensor, visible: Tensor | None, rows: Tensor | None
    ) -> Tensor:
        """Run one block; if `rows` (b, k) is given, only for these tokens: (b, k, width)."""
        if visible is None and rows is None:
            return block(x)
        normed = block.norm1(x)
        if rows is None:
            return _finish(block, x, self._attention(block, normed, normed, visible))
        places = rows[..., None].expand(-1, -1, x.shape[-1])
        x, queries = x.gather(1, places), normed.gather(1, places)
        return _finish(block, x, self._attention(block, queries, normed, visible))

    def _attention(
        self, block: Block, queries: Tensor, x: Tensor, visible: Tensor | None
    ) -> Tensor:
        """Attention in which class token and patches may see different keys.

        Two fused calls instead of one with an (n, n) mask: no matrix of size n x n is stored.

        Args:
            block: whose attention.
            queries: (b, k, width), the class token first.
            x: (b, n, width), what is attended to.
            visible: (b, 1, 1, n), for the masked kind of query; None: all see all.
        """
        attn = cast(Attention, block.attn)
        d = attn.attn_dim
        weight, bias = attn.qkv.weight, attn.qkv.bias
        q = F.linear(queries, weight[:d], None if bias is None else bias[:d])
        k, v = F.linear(x, weight[d:], None if bias is None else bias[d:]).chunk(2, dim=-1)
        q, k, v = (t.unflatten(-1, (attn.num_heads, -1)).transpose(1, 2) for t in (q, k, v))
        q, k = attn.q_norm(q), attn.k_norm(k)

        class_sees = visible if self.mask_on in ("class_token", "all_tokens") else None
        patch_sees = visible if self.mask_on in ("patch_tokens", "all_tokens") else None
        out = F.scaled_dot_product_attention(q[:, :, :1], k, v, class_sees)
        if q.shape[2] > 1:
            rest = F.scaled_dot_product_attention(q[:, :, 1:], k, v, patch_sees)
            out = torch.cat([out, rest], dim=2)
        return _project(attn, out.transpose(1, 2).flatten(2), queries)

    @staticmethod
    def _class_attention(block: Block, tokens: Tensor, visible: Tensor | None) -> Tensor:
        """The class token's attention, (b, 1, width), without computing keys or values of tokens.

        q·(W n) = (qᵀW)·n: one query is carried to the tokens instead of all tokens to the query,
        and values are mixed before they are projected. A bias of the keys is the same for all of
        them, so the softmax does not see it.
        """
        attn = cast(Attention, block.attn)
        normed = block.norm1(tokens)
        # h, d = head, its width; w = width of a token; k = token
        wq, wk, wv = attn.qkv.weight.unflatten(0, (3, attn.num_heads, -1)).unbind()
        query = torch.einsum("bw,hdw->bhd", normed[:, 0], wq)
        bias = attn.qkv.bias
        if bias is not None:
            bq, _, bv = bias.unflatten(0, (3, attn.num_heads, -1)).unbind()
            query = query + bq
        query = attn.q_norm(query) * attn.scale
        scores = torch.einsum("bhd,hdw->bhw", query, wk) @ normed.mT
        if visible is not None:
            scores = scores.masked_fill(~visible[:, 0], -torch.inf)
        out = torch.einsum("bhw,hdw->bhd", scores.softmax(-1) @ normed, wv)
        if bias is not None:
            out = out + bv
        return _project(attn, out.flatten(1)[:, None], normed[:, :1])


def padded(
    tokens: Tensor, counts: Tensor, starts: Tensor | None = None, longest: int | None = None
) -> tuple[Tensor, Tensor]:
    """Arrange packed tokens of images as a padded batch.

    Args:
        tokens: (total, width), image after image.
        counts: (b,), tokens of each, on the same device.
        starts: (b,), the first of each; None: one image follows the other.
        longest: the largest count, where asking the device for it would take time.

    Returns:
        (b, k, width), padded with other images' tokens, and which are real, (b, 1, 1, k).
    """
    if starts is None:
        starts = counts.cumsum(0) - counts
    places, real = _places(starts, counts, int(counts.max()) if longest is None else longest)
    return tokens[places.clamp_(max=len(tokens) - 1)], real[:, None, None]


def _places(starts: Tensor, counts: Tensor, longest: int) -> tuple[Tensor, Tensor]:
    """Indices of `counts` (b,) tokens from `starts` on, and which are real: (b, longest) each."""
    place = torch.arange(longest, device=counts.device)
    return starts[:, None] + place, place < counts[:, None]


def _project(attn: Attention, out: Tensor, queries: Tensor) -> Tensor:
    out = attn.norm(out)
    if attn.gate is not None:
        out = out * attn.gate(queries).sigmoid()
    return attn.proj(out)


def _finish(block: Block, x: Tensor, attended: Tensor) -> Tensor:
    x = x + block.drop_path1(block.ls1(attended))
    return x + block.drop_path2(block.ls2(block.mlp(block.norm2(x))))


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
