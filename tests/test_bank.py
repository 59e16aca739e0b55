"""The bank: what it keeps is what fresh views would give."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from anomalyncd.bank import Bank
from anomalyncd.errors import InputError
from anomalyncd.model import Model
from anomalyncd.training_set import Pixels
from anomalyncd.types import MaskOn
from anomalyncd.views import draw_parameters, training_views
from tests.test_fit import CPU, small_model, training_set

VIEWS = 3


def banked_views(model: Model) -> tuple[torch.Tensor, torch.Tensor]:
    """The views that a bank with seed 5 is made of."""
    pixels, stream = Pixels(training_set(), CPU), torch.Generator().manual_seed(5)
    images, masks = pixels.rows(torch.arange(16).repeat_interleave(VIEWS))
    drawn = draw_parameters(len(images), images.shape[1] - model.side, stream)
    return training_views(images, masks, model.side, model.mean, model.std, drawn)


@pytest.mark.parametrize("mask_on", ["class_token", "all_tokens", "patch_tokens", "none"])
def test_a_banked_view_gives_the_class_token_of_that_view(mask_on: MaskOn, tmp_path: Path) -> None:
    model = small_model()
    model.vit.mask_on = mask_on
    bank = Bank.fill(model, training_set(), VIEWS, 5, tmp_path / "bank")
    x, masks = banked_views(model)
    every_view = model(x, masks).unflatten(0, (-1, VIEWS))  # (16, 3, width)
    order = torch.tensor([2, 2, 9, 15])
    features = bank.class_tokens(order, torch.Generator().manual_seed(0)).unflatten(0, (2, -1))
    distance = (features[:, :, None] - every_view[order]).abs().amax(-1)  # (2, 4, 3)
    found = distance.min(-1)
    assert (found.values < 0.01).all()  # half precision
    assert (found.indices[0] != found.indices[1]).all(), "never one view twice"


def test_only_what_the_class_token_sees_is_kept(tmp_path: Path) -> None:
    model = small_model()
    bank = Bank.fill(model, training_set(), VIEWS, 5, tmp_path / "bank")
    _, masks = banked_views(model)
    assert bank.counts.tolist() == model.vit.visible_keys(masks).sum((1, 2, 3)).tolist()
    size = (tmp_path / "bank").stat().st_size
    assert size == int(bank.counts.sum()) * model.vit.width * 2


def test_tokens_beyond_half_precision_are_told(tmp_path: Path) -> None:
    model = small_model()
    with torch.no_grad():
        model.vit.vit.patch_embed.proj.bias.fill_(1e6)
    with pytest.raises(InputError, match=r"trunk=exact"):
        Bank.fill(model, training_set(), VIEWS, 5, tmp_path / "bank")
