"""The package's own backbone: the shipped weights are the trained ones, complete and small."""

from __future__ import annotations

import hashlib
from importlib import resources
from pathlib import Path

import pytest
import torch

from anomalyncd.config import BackboneConfig
from anomalyncd.errors import InputError
from anomalyncd.models import backbone, embedded
from anomalyncd.models.mask_guided_vit import MaskGuidedViT

SHIPPED = resources.files("anomalyncd.models").joinpath("embedded.safetensors")


def test_the_file_is_the_one_named_and_small_enough() -> None:
    stored = SHIPPED.read_bytes()
    assert hashlib.sha256(stored).hexdigest() == embedded._SHA256
    assert len(stored) <= 12_000_000


@pytest.mark.parametrize("side", [32, 112, 224])
def test_it_describes_views_of_any_side(side: int) -> None:
    built = backbone.build(BackboneConfig("embedded", image_size=side))
    assert built.source == "package" and built.mean == embedded.MEAN
    images = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    masks = torch.zeros(2, 1, side, side)
    masks[0, :, :16, :16] = 1
    features = MaskGuidedViT(built.vit)(images, masks)
    assert features.shape == (2, 192) and features.isfinite().all()


def test_it_distinguishes_textures_whatever_their_orientation() -> None:
    """Stripes and dots, turned and brightened, are nearest to their own kind."""
    line = torch.arange(112)
    stripes = ((line // 4) % 2).float().expand(112, 112)
    dots = stripes * stripes.T
    images = torch.stack([stripes, stripes.T * 0.8, dots, dots.flip(0) * 0.8])
    vit = MaskGuidedViT(backbone.build(BackboneConfig("embedded", image_size=112)).vit)
    with torch.inference_mode():
        x = (images[:, None].expand(-1, 3, -1, -1) - 0.5) / 0.5
        features = torch.nn.functional.normalize(vit(x, torch.ones(4, 1, 112, 112)), dim=-1)
    likeness = features @ features.T
    assert likeness[0, 1] > likeness[0, 2:].max() and likeness[2, 3] > likeness[2, :2].max()


def test_a_damaged_file_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_SHA256", "0" * 64)
    with pytest.raises(InputError, match="install anomalyncd again"):
        backbone.build(BackboneConfig("embedded", image_size=32))


def test_its_file_can_also_be_set_by_path(tmp_path: Path) -> None:
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(SHIPPED.read_bytes())
    ours = backbone.build(BackboneConfig("embedded"))
    given = backbone.build(BackboneConfig("embedded", checkpoint=str(copy)))
    assert given.source == "file"
    for a, b in zip(ours.vit.parameters(), given.vit.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_the_shipped_network_computes_the_same_as_the_trained_one() -> None:
    torch.manual_seed(0)
    trained = embedded.create(64, norm=True)
    with torch.no_grad():
        for _ in range(3):  # running means and variances that are not 0 and 1
            trained(torch.randn(4, 3, 64, 64) * 2 + 1)
    shipped = embedded.create(64)
    shipped.load_state_dict({k: t.float() for k, t in embedded.as_shipped(trained).items()})
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(shipped.eval()(x), trained.eval()(x), atol=0.02, rtol=0.02)
