"""Receptive fields of networks whose field is known by arithmetic."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from scripts.receptive_field import receptive_field


@pytest.mark.parametrize(
    ("layers", "field"),
    [
        ([nn.Conv2d(3, 4, 1)], 1),
        ([nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3)], 5),
        ([nn.Conv2d(3, 4, 4), nn.AvgPool2d(2, 2), nn.Conv2d(4, 4, 4)], 11),
        ([nn.Conv2d(3, 4, 3, dilation=4)], 9),
    ],
)
def test_arithmetic(layers: list[nn.Module], field: int) -> None:
    torch.manual_seed(0)
    assert receptive_field(nn.Sequential(*layers), side=64) == (field, field)


def test_an_oblong_field() -> None:
    assert receptive_field(nn.Conv2d(3, 1, (3, 9)), side=32) == (3, 9)


def test_a_model_that_sees_nothing_is_reported() -> None:
    with pytest.raises(ValueError, match="depends on no pixel"):
        receptive_field(lambda x: x * 0, side=8)


def test_the_efficientad_student_sees_33_pixels() -> None:
    """The figure that users choose tile sizes by (Batzner et al., 2023, appendix)."""
    pytest.importorskip("anomalib")
    from anomalib.models.image.efficient_ad.torch_model import SmallPatchDescriptionNetwork

    torch.manual_seed(0)
    student = SmallPatchDescriptionNetwork(out_channels=16, padding=False).eval()
    assert receptive_field(student, side=96) == (33, 33)
