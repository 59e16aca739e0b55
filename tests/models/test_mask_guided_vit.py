"""Mask-guided attention: parity, and what masking must and must not let through."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from anomalyncd.models.mask_guided_vit import MaskGuidedViT
from anomalyncd.types import MaskedQueries

GOLDEN = Path(__file__).parents[1] / "golden" / "vit.npz"


def small_vit(**options: object) -> VisionTransformer:
    torch.manual_seed(0)
    options = {
        "img_size": 32,
        "patch_size": 8,
        "embed_dim": 24,
        "depth": 4,
        "num_heads": 3,
    } | options
    return VisionTransformer(num_classes=0, **options).eval()


def half_mask(n: int = 2, side: int = 32) -> Tensor:
    mask = torch.zeros(n, 1, side, side)
    mask[..., : side // 2] = 1
    return mask


def plain_forward(
    vit: VisionTransformer, x: Tensor, masks: Tensor, blocks: int, mode: str
) -> Tensor:
    """The same by explicit attention matrices, all tokens in every block: the release's way."""
    kept = torch.nn.functional.avg_pool2d(masks, vit.patch_embed.patch_size).flatten(1) >= 0.5
    n, prefix = kept.shape[1] + vit.num_prefix_tokens, vit.num_prefix_tokens
    sees = torch.zeros(len(x), n, dtype=torch.bool)
    sees[:, 0] = True
    sees[:, prefix:] = kept
    allowed = torch.ones(len(x), n, n, dtype=torch.bool)
    rows = {"class_token": slice(0, 1), "patch_tokens": slice(1, n), "all_tokens": slice(0, n)}
    if mode != "none":
        allowed[:, rows[mode]] = sees[:, None]
    tokens = vit.norm_pre(vit._pos_embed(vit.patch_embed(x)))
    for i, block in enumerate(vit.blocks):
        masked = i >= len(vit.blocks) - blocks
        tokens = block(tokens, attn_mask=allowed[:, None] if masked else None)
    return vit.norm(tokens)[:, 0]


def test_matches_the_release() -> None:
    golden = np.load(GOLDEN)
    vit = VisionTransformer(
        img_size=64, patch_size=8, embed_dim=48, depth=12, num_heads=3, num_classes=0
    )
    vit.load_state_dict(
        {name[2:]: torch.from_numpy(golden[name]) for name in golden if name.startswith("w:")}
    )
    found = MaskGuidedViT(vit)(torch.from_numpy(golden["x"]), torch.from_numpy(golden["mask"]))
    np.testing.assert_allclose(found.detach(), golden["cls"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", ["class_token", "patch_tokens", "all_tokens", "none"])
@pytest.mark.parametrize("blocks", [0, 1, 3, 4])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"reg_tokens": 2, "init_values": 0.1, "no_embed_class": True},
        {"qk_norm": True, "scale_attn_norm": True, "qkv_bias": False},
    ],
    ids=["plain", "registers", "normed"],
)
def test_matches_explicit_attention(mode: str, blocks: int, options: dict) -> None:
    vit = small_vit(**options)
    x, masks = torch.randn(2, 3, 32, 32), half_mask()
    found = MaskGuidedViT(vit, blocks, mode)(x, masks)
    torch.testing.assert_close(found, plain_forward(vit, x, masks, blocks, mode))


class OnGpu(Tensor):
    """A tensor that claims to be on a GPU, for which the network has another code path."""

    is_cuda = True


@pytest.mark.parametrize("mode", ["class_token", "patch_tokens", "all_tokens", "none"])
@pytest.mark.parametrize("blocks", [0, 1, 3, 4])
@pytest.mark.parametrize("options", [{}, {"qk_norm": True}], ids=["plain", "normed"])
def test_the_code_path_for_gpus_gives_the_same(
    mode: MaskedQueries, blocks: int, options: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    vit = small_vit(**options)
    x, masks = torch.randn(2, 3, 32, 32), half_mask()
    model = MaskGuidedViT(vit, blocks, mode)
    monkeypatch.delattr(MaskGuidedViT, "visible_tokens")  # it would make the host wait
    found = model(x.as_subclass(OnGpu), masks).as_subclass(Tensor)
    torch.testing.assert_close(found, plain_forward(vit, x, masks, blocks, mode))


@given(st.integers(0, 2**16 - 1), st.integers(0, 2**31))
def test_class_token_ignores_what_masked_blocks_hide(kept: int, seed: int) -> None:
    """With all blocks masked for all tokens, pixels outside kept patches change nothing."""
    grid = torch.tensor([kept >> i & 1 for i in range(16)], dtype=torch.float32).view(1, 1, 4, 4)
    masks = grid.repeat_interleave(8, 2).repeat_interleave(8, 3)
    vit = MaskGuidedViT(small_vit(), 4, "all_tokens")
    stream = torch.Generator().manual_seed(seed)
    x, other = torch.randn(2, 1, 3, 32, 32, generator=stream)
    torch.testing.assert_close(vit(x, masks), vit(torch.where(masks > 0, x, other), masks))


def test_without_mask_it_equals_the_plain_network() -> None:
    vit, x = small_vit(), torch.randn(2, 3, 32, 32)
    found = MaskGuidedViT(vit, 4, "none")(x, torch.zeros(2, 1, 32, 32))
    torch.testing.assert_close(found, vit.forward_features(x)[:, 0])
    full = MaskGuidedViT(vit, 4, "class_token")(x, torch.ones(2, 1, 32, 32))
    torch.testing.assert_close(full, vit.forward_features(x)[:, 0])


def test_a_thin_defect_keeps_a_patch_only_with_the_settings_for_it() -> None:
    scratch = torch.zeros(1, 1, 32, 32)
    scratch[..., 12:15, :] = 1
    vit = small_vit()
    for options, patches in (
        ({}, 0),
        ({"keep_pool": "max"}, 4),
        ({"keep_threshold": 0.3}, 4),
    ):
        visible = MaskGuidedViT(vit, 4, **options).attention_mask(scratch)
        assert int(visible.sum()) == 1 + patches  # the class token always sees itself
        assert MaskGuidedViT(vit, 4, **options)(torch.randn(1, 3, 32, 32), scratch).isfinite().all()


@pytest.mark.parametrize(("rows", "kept"), [(3, 0), (4, 4), (8, 4), (12, 8)])
def test_a_patch_is_kept_if_the_mask_covers_half_of_it(rows: int, kept: int) -> None:
    """Patches are 8 pixels high."""
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., :rows, :] = 1
    visible = MaskGuidedViT(small_vit(), 4).attention_mask(mask)[0, 0, 0]
    assert visible.tolist() == [True] * (1 + kept) + [False] * (16 - kept)


def test_only_the_last_block_trains() -> None:
    model = MaskGuidedViT(small_vit(), 2)
    model(torch.randn(2, 3, 32, 32), half_mask()).sum().backward()
    trained = {name for name, p in model.named_parameters() if p.grad is not None}
    assert trained == {n for n, _ in model.named_parameters() if n.startswith("vit.blocks.3.")}


@pytest.mark.parametrize(
    "name",
    ["vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "vit_small_patch14_reg4_dinov2"],
)
def test_takes_timm_models_at_any_side(name: str) -> None:
    side = 56 if "14" in name else 64
    vit = timm.create_model(name, img_size=side, num_classes=0)
    features = MaskGuidedViT(vit)(torch.randn(1, 3, side, side), half_mask(1, side))
    assert features.shape == (1, vit.embed_dim) and features.isfinite().all()


def test_networks_that_cannot_be_masked_are_refused() -> None:
    with pytest.raises(ValueError, match="class token"):
        MaskGuidedViT(small_vit(class_token=False, global_pool="avg"))
    with pytest.raises(ValueError, match="masked_blocks=5: expected 0 to 4"):
        MaskGuidedViT(small_vit(), 5)
    with pytest.raises(ValueError, match="mask_on=cls"):
        MaskGuidedViT(small_vit(), 4, "cls")
    with pytest.raises(ValueError, match="plain Block"):
        MaskGuidedViT(timm.create_model("vit_tiny_patch16_224", block_fn=_OtherBlock), 4)


class _OtherBlock(timm.models.vision_transformer.ParallelScalingBlock):
    pass


@pytest.mark.parametrize("mode", ["class_token", "patch_tokens", "all_tokens", "none"])
@pytest.mark.parametrize("options", [{}, {"qk_norm": True, "qkv_bias": False}, {"reg_tokens": 2}])
def test_frozen_blocks_in_bfloat16_are_close(mode: str, options: dict[str, object]) -> None:
    model = MaskGuidedViT(small_vit(**options), 2, mode)  # type: ignore[arg-type]
    x, masks = torch.rand(2, 3, 32, 32), half_mask()
    full = model(x, masks)
    model.precision = torch.bfloat16
    lower = model(x, masks)
    assert lower.dtype == torch.float32
    assert not torch.equal(lower, full)
    torch.testing.assert_close(lower, full, rtol=0, atol=0.05)  # of a unit variance
