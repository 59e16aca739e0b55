"""The dense stem: the same numbers as the stem where the grids meet, on a grid twice as fine."""

from __future__ import annotations

import pytest
import torch

from anomalyncd.config import BackboneConfig
from anomalyncd.models import dense_stem, embedded, patch_features


@pytest.fixture(scope="module")
def stem() -> embedded.Stem:
    vit = embedded.create(64)
    embedded.load_weights(vit)
    found = vit.patch_embed.proj.eval()
    assert isinstance(found, embedded.Stem)
    return found


@torch.inference_mode()
def test_the_fine_grid_holds_the_coarse_one(stem: embedded.Stem) -> None:
    """À trous: every second place of the fine grid is a place of the stem's own, away from the
    border, where padding differs."""
    image = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0)) * 2 - 1
    seen = {}
    dense = dense_stem.DenseStem(stem)  # first: it would copy the hooks
    for number in (6, 12):
        stem.blocks[number].layers[1].register_forward_hook(
            lambda module, given, out, number=number: seen.update({number: out.clone()})
        )
    stem(image)
    shallow, deep = dense(image)
    assert shallow.shape == (1, 192, 32, 32) and deep.shape == (1, 576, 32, 32)
    # A convolution with a stride starts at its first pixel, one without at the one before.
    torch.testing.assert_close(shallow[..., 1:-1:2, 1:-1:2], seen[6][..., :-1, :-1])
    inner = slice(6, 9)  # the deeper features see farther, and there nothing of the padding
    torch.testing.assert_close(deep[..., 13:19:2, 13:19:2], seen[12][..., inner, inner])


@torch.inference_mode()
def test_the_stem_itself_is_unchanged(stem: embedded.Stem) -> None:
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    before = stem(image)
    dense_stem.DenseStem(stem)(image)
    assert torch.equal(before, stem(image))


@torch.inference_mode()
def test_a_place_answers_to_its_own_pixels(stem: embedded.Stem) -> None:
    """Padding at the right and bottom alone would move it by 3.5 pixels; the filters make up for
    that, so that maps need no correction."""
    generator = torch.Generator().manual_seed(0)
    dense = dense_stem.DenseStem(stem)
    places = (torch.arange(32) + 0.5) * dense_stem.STRIDE
    off = []
    for _ in range(8):
        image = torch.rand(1, 3, 256, 256, generator=generator) * 2 - 1
        spot = image.clone()
        spot[..., 124:132, 124:132] = torch.rand(3, 1, 1, generator=generator) * 2 - 1
        for changed, plain in zip(dense(spot), dense(image), strict=True):
            change = (changed - plain).abs().sum(1)[0]
            off.append([float((change.sum(k) * places).sum() / change.sum()) - 128 for k in (0, 1)])
    assert torch.tensor(off).mean(0).abs().max() < 4


@torch.inference_mode()
@pytest.mark.parametrize(
    ("name", "channels", "grid"),
    [("embedded", (192, 576), 8), ("vit_tiny_patch16_224", (192, 192), 4)],
)
def test_features_of_any_backbone_lie_on_a_grid(
    name: str, channels: tuple[int, ...], grid: int
) -> None:
    config = BackboneConfig(name, pretrained=name == "embedded", image_size=224)
    features = patch_features.create(config, 64, "backbone", torch.device("cpu"))
    found = features(torch.rand(2, 3, 64, 64))
    assert features.channels == channels
    assert [tuple(depth.shape) for depth in found] == [(2, c, grid, grid) for c in channels]
    assert patch_features.patch_size(config, "backbone") == 16
