"""The memory bank of normal patches against a plain search, and what its spacing does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from anomalyncd.detectors.reference.memory_bank import MemoryBank, coreset


def patches(n: int, d: int = 4, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def farthest_first(points: np.ndarray, size: int) -> list[int]:
    """A plain k-centre selection that starts at the first point."""
    chosen = [0]
    while len(chosen) < min(size, len(points)):
        nearest = [min(np.linalg.norm(p - points[c]) for c in chosen) for p in points]
        for c in chosen:
            nearest[c] = -1.0
        chosen.append(int(np.argmax(nearest)))
    return chosen


@given(n=st.integers(2, 25), size=st.integers(1, 30), seed=st.integers(0, 99))
def test_a_coreset_takes_the_farthest_patch_each_time(n: int, size: int, seed: int) -> None:
    points = patches(n, seed=seed).double()
    assert coreset(points, size).tolist() == farthest_first(points.numpy(), size)


def test_equal_patches_are_selected_once_each() -> None:
    assert sorted(coreset(torch.ones(5, 3), 9).tolist()) == [0, 1, 2, 3, 4]


def test_a_coreset_of_many_dimensions_works_on_a_projection_that_keeps_far_patches() -> None:
    near, far = 0.01 * patches(300, 500), patches(3, 500, seed=1)
    chosen = coreset(torch.cat([near, far]), 4).tolist()
    assert {300, 301, 302} <= set(chosen)


def test_a_score_is_the_distance_to_the_nearest_over_its_spacing() -> None:
    own, others = patches(12), patches(40, seed=1)
    bank = MemoryBank.of(own, 12, neighbours=3)
    between = np.linalg.norm(bank.patches[:, None] - bank.patches[None], axis=-1)
    spacing = np.sort(between, axis=1)[:, 1:4].mean(1)
    distances = np.linalg.norm(others.numpy()[:, None] - bank.patches.numpy()[None], axis=-1)
    nearest = distances.argmin(1)
    expected = distances.min(1) / spacing[nearest]
    np.testing.assert_allclose(bank.scores(others), expected, rtol=1e-3)


def test_a_patch_of_the_bank_scores_nothing() -> None:
    bank = MemoryBank.of(patches(50), 50, neighbours=8)
    assert bank.scores(bank.patches).max() < 0.01


def test_the_same_distance_counts_for_less_where_normal_patches_vary() -> None:
    uniform = 0.1 * patches(50)
    varied = 3 * patches(50, seed=1) + 100
    bank = MemoryBank.of(torch.cat([uniform, varied]), 100, neighbours=4)
    step = torch.tensor([1.0, 0, 0, 0])
    near_uniform, near_varied = bank.scores(torch.stack([uniform[0] + step, varied[0] + step]))
    assert near_uniform > 5 * near_varied


def test_equal_good_images_give_finite_scores() -> None:
    bank = MemoryBank.of(torch.ones(10, 4), 10, neighbours=4)
    assert bank.scores(patches(3)).isfinite().all()


@pytest.mark.parametrize("size", [1, 7])
def test_patches_are_scored_alone(size: int) -> None:
    bank, others = MemoryBank.of(patches(64), 32, neighbours=4), patches(20, seed=2)
    alone = torch.cat([bank.scores(part) for part in others.split(size)])
    torch.testing.assert_close(alone, bank.scores(others), rtol=1e-5, atol=1e-5)
