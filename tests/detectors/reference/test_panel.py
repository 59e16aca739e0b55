"""Scores by a panel against a plain loop, and defects that recur."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from anomalyncd.detectors.mutual_scoring import mutual_scores
from anomalyncd.detectors.reference.panel import Panel


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def plain(patches: np.ndarray, panel: np.ndarray, left_out: set[int]) -> np.ndarray:
    """As the docstring says it, image by image and patch by patch."""
    distances = {
        i: [min(np.linalg.norm(q - r) for r in image) for q in patches]
        for i, image in enumerate(panel)
        if i not in left_out
    }
    rank = max(1, math.ceil(0.9 * len(patches))) - 1
    whole = {i: sorted(d)[rank] for i, d in distances.items()}
    similar = sorted(whole, key=lambda i: whole[i])[:8]
    return np.array(
        [np.quantile([distances[i][q] for i in similar], 0.25) for q in range(len(patches))]
    )


@given(images=st.integers(2, 12), p=st.integers(1, 12), seed=st.integers(0, 99))
def test_scores_are_those_of_a_plain_loop(images: int, p: int, seed: int) -> None:
    patches, panel = drawn(p, 5, seed=seed), drawn(images, 6, 5, seed=seed + 1)
    found = Panel(panel).scores(patches, [images - 1])
    assert found.numpy() == pytest.approx(
        plain(patches.numpy(), panel.numpy(), {images - 1}), abs=1e-3
    )


def test_the_scored_image_itself_does_not_count() -> None:
    panel = drawn(6, 8, 5)
    assert Panel(panel).scores(panel[2]).max() > 0
    assert Panel(panel).scores(panel[2]).median() < Panel(panel).scores(panel[2], [2]).median()
    with pytest.raises(ValueError, match="no image"):
        Panel(panel[:1]).scores(panel[0], [0])


def test_a_defect_that_recurs_is_not_hidden_by_the_images_that_have_it() -> None:
    """The same defect in one of the six images of each of ten poses."""
    generator = torch.Generator().manual_seed(3)

    def noise(*shape: int) -> torch.Tensor:
        return 0.03 * torch.randn(*shape, generator=generator)

    poses = drawn(10, 1, 12, 32).expand(10, 6, 12, 32)
    images = (poses + noise(10, 6, 12, 32)).flatten(0, 1)
    defective = torch.arange(0, 60, 6)
    images[defective, 7] = drawn(32, seed=4) + noise(10, 32) / 10
    images = F.normalize(images, dim=-1)

    panel = Panel(images)
    found = torch.stack([panel.scores(image, [i]) for i, image in enumerate(images)])
    by_musc = mutual_scores(images.numpy(), topmin_max=0.1)

    elsewhere = torch.ones(60, 12, dtype=torch.bool)
    elsewhere[defective, 7] = False
    assert by_musc[defective, 7].max() < by_musc[elsewhere].min(), "the effect itself"
    assert found[defective, 7].min() > 2 * found[elsewhere].max()
