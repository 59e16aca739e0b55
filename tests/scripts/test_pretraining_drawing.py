"""Drawn pictures: the same for a seed, well-formed, and as different from one another as can be."""

import numpy as np
import pytest
from numpy.typing import NDArray

from scripts.pretraining import fields, shapes
from scripts.pretraining.drawing import draw

COUNT = 96


@pytest.fixture(scope="module")
def drawn() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    with np.errstate(all="raise", under="ignore"):
        images, segments = zip(*(draw(seed, side=96) for seed in range(COUNT)), strict=True)
    return np.stack(images), np.stack(segments)


def test_a_seed_is_a_picture() -> None:
    first, again, other = (draw(np.random.SeedSequence(seed), side=64) for seed in (7, 7, 8))
    assert np.array_equal(first[0], again[0]) and np.array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])


@pytest.mark.parametrize("side", [33, 192])
def test_shapes_and_types(side: int) -> None:
    image, segments = draw(3, side)
    assert image.shape == (side, side, 3) and image.dtype == np.uint8
    assert segments.shape == (side, side) and segments.dtype == np.uint8


def test_every_picture_has_a_piece_and_most_have_a_ground(
    drawn: tuple[NDArray[np.uint8], NDArray[np.uint8]],
) -> None:
    covered = (drawn[1] > 0).mean(axis=(1, 2))
    assert (covered > 0).all()
    assert (covered < 1).mean() > 0.8
    assert covered.std() > 0.15  # from specks to parts that fill the picture


def test_pieces_are_visible(drawn: tuple[NDArray[np.uint8], NDArray[np.uint8]]) -> None:
    """Pixels differ more across the border of a piece than between neighbours elsewhere."""
    images, segments = drawn
    step = np.abs(np.diff(images.astype(float), axis=2)).mean(axis=-1)
    border = np.diff(segments.astype(int), axis=2) != 0
    ratios = [
        s[b].mean() / (s[~b].mean() + 1) for s, b in zip(step, border, strict=True) if b.any()
    ]
    assert np.median(ratios) > 1.3


def test_pictures_differ(drawn: tuple[NDArray[np.uint8], NDArray[np.uint8]]) -> None:
    """Brightness, contrast, colour and spectrum each range widely."""
    images = drawn[0].astype(float)
    grey = images.mean(axis=-1)
    assert grey.mean(axis=(1, 2)).std() > 30
    assert grey.std(axis=(1, 2)).min() > 1
    saturation = (images.max(axis=-1) - images.min(axis=-1)).mean(axis=(1, 2))
    assert 0.2 < (saturation < 1).mean() < 0.5  # a third are grey
    assert np.quantile(saturation, 0.9) > 60
    power = np.abs(np.fft.rfft2(grey - grey.mean(axis=(1, 2), keepdims=True))) ** 2
    frequency = np.hypot(np.fft.fftfreq(96)[:, None], np.fft.rfftfreq(96))
    centroid = (power * frequency).sum(axis=(1, 2)) / power.sum(axis=(1, 2))
    assert np.quantile(centroid, 0.9) > 3 * np.quantile(centroid, 0.1)
    signatures = images.reshape(COUNT, 8, 12, 8, 12, 3).mean(axis=(2, 4)).reshape(COUNT, -1)
    gaps = np.linalg.norm(signatures[:, None] - signatures, axis=-1) / np.sqrt(192)
    assert gaps[~np.eye(COUNT, dtype=bool)].min() > 5


@pytest.mark.parametrize("pattern", dict.fromkeys(fields.PATTERNS))
def test_patterns_are_fields(pattern: fields.Pattern) -> None:
    drawn = [pattern(np.random.default_rng(seed), 64) for seed in range(8)]
    for field in drawn:
        assert field.shape == (64, 64) and field.dtype == np.float32
        assert field.min() >= -0.5 and field.max() <= 1.5  # cubic resizing overshoots a little
    assert np.mean([field.std() for field in drawn]) > 0.03


@pytest.mark.parametrize("mark", dict.fromkeys(shapes.MARKS))
def test_marks_cover_a_part_near_their_centre(mark: shapes.Mark) -> None:
    total = np.zeros((64, 64), np.float32)
    for seed in range(30):
        coverage = mark(np.random.default_rng(seed), 64, np.array([40.0, 24.0]), 12.0)
        assert coverage.dtype == np.float32
        assert coverage.min() >= 0 and coverage.max() <= 1
        total += coverage
    assert total.sum() > 0
    y, x = np.unravel_index(total.argmax(), total.shape)
    assert np.hypot(x - 40, y - 24) < 32
    assert total[8:40, 24:56].mean() > total.mean()


def test_a_part_that_covers_the_picture_has_a_finite_height() -> None:
    # OpenCV's distance to an outside that is not there is the largest float.
    assert shapes.depth_inside(np.ones((32, 32), np.float32)).max() <= 32
