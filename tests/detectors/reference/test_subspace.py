"""The subspace of normal patches against numpy's singular values."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from anomalyncd.detectors.reference.subspace import Subspace


def patches(n: int, d: int, seed: int = 0) -> torch.Tensor:
    """Centred, with variances that fall."""
    drawn = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    drawn = drawn * 0.5 ** torch.arange(d)
    return drawn - drawn.mean(0)


@given(
    n=st.integers(2, 30), d=st.integers(1, 8), share=st.floats(0.05, 0.99), seed=st.integers(0, 99)
)
def test_the_fewest_directions_that_explain_the_share_are_kept(
    n: int, d: int, share: float, seed: int
) -> None:
    x = patches(n, d, seed)
    variances = np.linalg.svd(x.numpy(), compute_uv=False) ** 2
    explained = variances.cumsum() / variances.sum()
    kept = len(Subspace.of(x, share).basis)
    assert explained[kept - 1] >= share - 1e-9
    assert kept == 1 or explained[kept - 2] < share + 1e-9


@given(seed=st.integers(0, 99))
def test_a_score_is_the_distance_to_the_nearest_point_of_the_subspace(seed: int) -> None:
    x = patches(40, 6, seed)
    subspace = Subspace.of(x, 0.9)
    some = torch.randn(5, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    coefficients = np.linalg.lstsq(subspace.basis.T.numpy(), some.T.numpy(), rcond=None)[0]
    plain = np.linalg.norm(some.T.numpy() - subspace.basis.T.numpy() @ coefficients, axis=0)
    assert subspace.scores(some).numpy() == pytest.approx(plain, abs=1e-9)
