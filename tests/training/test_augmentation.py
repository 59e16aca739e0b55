"""Views: against the release's values, and against Pillow with the same parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import stats
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from anomalyncd.training import augmentation
from anomalyncd.training.augmentation import (
    Parameters,
    draw_parameters,
    evaluation_view,
    training_views,
)
from tests.oracles import views as oracle

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet
GOLDEN = Path(__file__).parents[1] / "golden" / "transform.npz"
DRAWS = 6000


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def golden_region(i: int, stored: int) -> tuple[Tensor, Tensor]:
    """Golden image and mask number i as the cutter stores them: (1, s, s, 3) and (1, s, s)."""
    with np.load(GOLDEN) as golden:
        pair = [golden[f"{name}_{i}"] for name in ("image", "maskimg")]
    size, bilinear = (stored, stored), Image.Resampling.BILINEAR
    resized = [np.array(Image.fromarray(array).resize(size, bilinear)) for array in pair]
    return torch.from_numpy(resized[0])[None], torch.from_numpy(resized[1])[None]


def regions(n: int, stored: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A photograph under more and more noise, so that flat areas and full range both occur."""
    image, _ = golden_region(2, stored)
    noise = torch.randn((n, stored, stored, 3), generator=seeded(seed))
    images = image + noise * torch.linspace(0, 80, n)[:, None, None, None]
    masks = torch.randint(0, 256, (n, stored, stored), generator=seeded(seed), dtype=torch.uint8)
    return images.clamp(0, 255).byte(), masks


def as_pillow(x: Tensor, operation: Callable[[Image.Image, int], Image.Image]) -> Tensor:
    """Apply `operation(picture, i)` to every region of grey levels x (b, 3, h, w)."""
    done = [operation(F.to_pil_image(region.byte()), i) for i, region in enumerate(x)]
    return torch.stack([F.pil_to_tensor(picture) for picture in done]).float()


def assert_same_levels(x: Tensor, expected: Tensor) -> None:
    """Equal but for pixels on the verge of the next grey level."""
    difference = (x - expected).abs()
    assert difference.max() <= 1
    assert difference.mean() < 1e-3


@pytest.mark.parametrize("i", [2, 3, 4, 5])  # the square ones
def test_evaluation_view_is_the_release_s(i: int) -> None:
    x, mask = evaluation_view(*golden_region(i, 256), 224, MEAN, STD)
    with np.load(GOLDEN) as golden:
        expected_x, expected_mask = golden[f"x_{i}"], golden[f"mask_{i}"]
    # atol: half a unit in the last place of a float16 in [2, 4)
    np.testing.assert_allclose(x[0], expected_x.astype(np.float32), rtol=0, atol=1.01e-3)
    np.testing.assert_allclose(mask[0], expected_mask.astype(np.float32), rtol=0, atol=2.6e-4)


@given(side=st.integers(17, 64), seed=st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_evaluation_view_is_the_centre(side: int, seed: int) -> None:
    stored = round(side * 8 / 7)
    images = torch.randint(0, 256, (2, stored, stored, 3), generator=seeded(seed)).byte()
    x, mask = evaluation_view(images, images[..., 1], side, (0.0, 0.5, 0.0), (1.0, 0.5, 1.0))
    before = (stored - side) // 2
    after = stored - side - before
    assert after - before in (0, 1)
    centre = images[:, before : stored - after, before : stored - after].float() / 255
    torch.testing.assert_close(x[:, 0], centre[..., 0])
    torch.testing.assert_close(x[:, 1], centre[..., 1] * 2 - 1)
    torch.testing.assert_close(mask[:, 0], centre[..., 1])


@pytest.mark.parametrize(("stored", "side", "n"), [(256, 224, 6), (73, 64, 40)])
def test_training_views_are_the_release_s(stored: int, side: int, n: int) -> None:
    images, masks = regions(n, stored)
    kept = images.clone(), masks.clone()
    drawn = draw_parameters(n, stored - side, seeded(1))
    x, mask = training_views(images, masks, side, MEAN, STD, drawn)
    expected_x, expected_mask = oracle.training_views(images, masks, side, MEAN, STD, drawn)

    assert x.shape == (n, 3, side, side)
    assert mask.shape == (n, 1, side, side)
    assert x.dtype == mask.dtype == torch.float32
    levels = (x - expected_x).abs() * 255 * torch.tensor(STD)[:, None, None]
    # A pixel on the verge of the next posterized level may land one step of 1 to 8 levels off.
    assert levels.max() < 8.01
    assert levels.mean() < 0.01
    torch.testing.assert_close(mask, expected_mask)
    assert torch.equal(images, kept[0])
    assert torch.equal(masks, kept[1])


def test_views_depend_only_on_the_seed() -> None:
    images, masks = regions(3, 73)
    state = torch.get_rng_state()
    generator = seeded(5)
    first = training_views(images, masks, 64, MEAN, STD, draw_parameters(3, 9, generator))
    second = training_views(images, masks, 64, MEAN, STD, draw_parameters(3, 9, generator))
    again = training_views(images, masks, 64, MEAN, STD, draw_parameters(3, 9, seeded(5)))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_every_region_gets_its_own_view() -> None:
    images, masks = (tensor.expand(8, *tensor.shape[1:]) for tensor in regions(1, 73))
    drawn = draw_parameters(8, 9, seeded(0))
    x, mask = training_views(images, masks, 64, MEAN, STD, drawn)
    some = training_views(images[:2], masks[:2], 64, MEAN, STD, drawn.rows(torch.tensor([5, 2])))
    assert torch.equal(some[0], x[[5, 2]]) and torch.equal(some[1], mask[[5, 2]])
    for i, j in permutations(range(8), 2):
        assert not torch.equal(x[i], x[j])
        assert not torch.equal(mask[i], mask[j])


def geometries() -> Parameters:
    """All 16 combinations of flips and turns, each with another offset in 0 ... 8."""
    flips = torch.tensor(list(product((False, True), repeat=2))).repeat_interleave(4, 0)
    turns = torch.arange(4).repeat(4)[:, None]
    return replace(draw_parameters(16, 9, seeded(0)), flip=flips, turns=turns)


def test_image_and_mask_move_together_as_in_pillow() -> None:
    stored, side, p = 40, 31, geometries()
    row, column = torch.meshgrid(torch.arange(stored), torch.arange(stored), indexing="ij")
    number = (row * 37 + column * 101) % 256  # another coordinate code, shared by image and mask
    image = torch.stack((row, column, number), -1).byte()
    x, mask = augmentation._move(
        image.expand(16, -1, -1, -1), number.byte().expand(16, -1, -1), side, p
    )
    assert torch.equal(x[:, 2], (mask[:, 0] * 255).round())
    for i in range(16):
        expected = F.rotate(
            oracle._crop_and_flip(image.numpy(), side, p, i), 90 * p.turns[i].item()
        )
        assert torch.equal(x[i], F.pil_to_tensor(expected).float())


def levels_and_parameters(n: int = 12) -> tuple[Tensor, Parameters]:
    images, _ = regions(n, 64)
    return images.permute(0, 3, 1, 2).float(), draw_parameters(n, 9, seeded(3))


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_colour_jitter_is_pillow_s_in_any_order(order: tuple[int, ...]) -> None:
    x, p = levels_and_parameters()
    p = replace(p, order=torch.tensor(order).expand(len(x), 3))

    def jitter(picture: Image.Image, i: int) -> Image.Image:
        for k in order:
            picture = oracle.COLOUR[k](picture, p.colour[i, k].item())
        return picture

    expected = as_pillow(x, jitter)
    augmentation._jitter_colour(x, p)
    difference = (x - expected).abs()  # one level lost early can grow by the later factors
    assert difference.max() <= 3
    assert difference.mean() < 1e-3


def test_sharpening_is_pillow_s() -> None:
    x, p = levels_and_parameters()
    before = x.clone()
    expected = as_pillow(x, lambda picture, i: F.adjust_sharpness(picture, p.sharpness[i].item()))
    augmentation._sharpen(x, p)
    assert_same_levels(x, expected)
    border = torch.ones_like(x, dtype=torch.bool)
    border[:, :, 1:-1, 1:-1] = False
    assert torch.equal(x[border], before[border])


@pytest.mark.parametrize("width", range(9, 34, 4))
def test_blur_is_torchvision_s(width: int) -> None:
    x, p = levels_and_parameters()
    p = replace(
        p,
        blur_radius=torch.full_like(p.blur_radius, width // 2),
        sigma=torch.linspace(0.1, 2.0, len(x))[:, None],
    )
    expected = as_pillow(
        x, lambda picture, i: F.gaussian_blur(picture, [width] * 2, [p.sigma[i].item()] * 2)
    )
    augmentation._blur(x, p)
    assert_same_levels(x, expected)


@pytest.mark.parametrize("bits", [5, 6, 7, 8])
def test_posterize_is_pillow_s(bits: int) -> None:
    x, p = levels_and_parameters()
    p = replace(p, bits=torch.full_like(p.bits, bits))
    expected = as_pillow(x, lambda picture, _: F.posterize(picture, bits))
    augmentation._posterize(x, p)
    assert torch.equal(x, expected)


def test_factors_are_uniform() -> None:
    p = draw_parameters(DRAWS, 32, seeded(3407))
    ranges = [
        (p.colour[:, 0], 0.6, 1.4),
        (p.colour[:, 1], 0.6, 1.4),
        (p.colour[:, 2], 0.6, 1.8),
        (p.sharpness[:, 0], 0.2, 2.0),
        (p.sigma[:, 0], 0.1, 2.0),
    ]
    for values, low, high in ranges:
        assert values.min() >= low
        assert values.max() <= high
        assert stats.kstest(values, stats.uniform(low, high - low).cdf).pvalue > 1e-3


def test_choices_are_equally_likely() -> None:
    p = draw_parameters(DRAWS, 32, seeded(3407))
    choices = [
        (p.offset[:, 0], range(32)),
        (p.offset[:, 1], range(32)),
        (p.flip[:, 0], (False, True)),
        (p.flip[:, 1], (False, True)),
        (p.turns[:, 0], range(4)),
        (2 * p.blur_radius[:, 0] + 1, (9, 13, 17, 21, 25, 29, 33)),
        (p.bits[:, 0], (5, 6, 7, 8)),
        (p.order @ torch.tensor([100, 10, 1]), (12, 21, 102, 120, 201, 210)),
    ]
    for values, expected in choices:
        found, counts = values.unique(return_counts=True)
        assert found.tolist() == list(expected)
        assert stats.chisquare(counts).pvalue > 1e-3


def test_parameters_are_independent() -> None:
    p = draw_parameters(DRAWS, 32, seeded(3407))
    drawn = [getattr(p, field.name).float() for field in fields(p) if field.name != "order"]
    correlation = torch.corrcoef(torch.cat([*drawn, p.order[:, :1].float()], 1).T)
    assert (correlation - torch.eye(len(correlation))).abs().max() < 5 / DRAWS**0.5


def test_a_transfer_keeps_every_parameter() -> None:
    p = draw_parameters(20, 32, seeded(0))
    moved = p.to(torch.device("cpu"))
    for field in fields(p):
        before, after = getattr(p, field.name), getattr(moved, field.name)
        assert before.dtype == after.dtype
        assert torch.equal(before, after)
