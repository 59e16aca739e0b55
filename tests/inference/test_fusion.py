"""Fusion of regions: the release's predictions, and properties."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from anomalyncd.evaluation import metrics
from anomalyncd.inference import fusion
from anomalyncd.inference.classify import novel_probabilities

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "fusion_metrics.npz")
N_BASE = int(GOLDEN["n_base"])


@pytest.mark.parametrize("temperature", [100, 50])
@pytest.mark.parametrize("head", range(4))
def test_predictions_and_scores_match_the_release(temperature: int, head: int) -> None:
    logits = torch.from_numpy(GOLDEN["logits"])
    probabilities = novel_probabilities(logits, N_BASE)[:, head].numpy()
    fused = fusion.fuse(probabilities, GOLDEN["mask_area"], GOLDEN["image_of_region"], temperature)
    expected = GOLDEN[f"pred_temp{temperature}"][head]
    np.testing.assert_array_equal(N_BASE + fused.argmax(1), expected)
    found = metrics.score(GOLDEN["target"], fused.argmax(1))
    np.testing.assert_allclose(
        [found.nmi, found.ari, found.f1], GOLDEN[f"nmi_ari_f1_temp{temperature}"][head], rtol=1e-9
    )


@given(st.integers(0, 2**31), st.integers(1, 9), st.floats(1, 200))
def test_each_way_gives_distributions_whatever_the_order(
    seed: int, n_images: int, temperature: float
) -> None:
    rng = np.random.default_rng(seed)
    image = np.concatenate([np.arange(n_images), rng.integers(0, n_images, 10)])
    p = rng.dirichlet(np.ones(4), len(image))
    areas, scores = rng.integers(0, 10**7, len(image)), rng.uniform(0, 1, len(image))
    order = rng.permutation(len(image))
    for fuse in (
        lambda o: fusion.fuse(p[o], areas[o], image[o], temperature),
        lambda o: fusion.fuse_by_average(p[o], image[o]),
        lambda o: fusion.fuse_by_score(p[o], scores[o], image[o]),
    ):
        fused = fuse(np.arange(len(image)))
        np.testing.assert_allclose(fused.sum(1), 1)
        np.testing.assert_allclose(fused, fuse(order))


def test_the_larger_region_weighs_more_and_huge_areas_do_not_overflow() -> None:
    p, image = [[1, 0], [0, 1]], [0, 0]
    assert fusion.fuse(p, [400, 100], image, 5)[0] == pytest.approx(
        [np.e**2 / (1 + np.e**2), 1 / (1 + np.e**2)]
    )
    assert fusion.fuse(p, [10**14, 0], image, 1)[0] == pytest.approx([1, 0])
    assert fusion.fuse_by_average(p, image)[0] == pytest.approx([0.5, 0.5])
    assert fusion.fuse_by_score(p, [0.2, 0.9], image)[0][1] > 0.5


@pytest.mark.parametrize("image", [[0, 2], [1, 1], [-1, 0]])
def test_an_image_without_a_region_is_an_error(image: list[int]) -> None:
    p = [[1, 0], [0, 1]]
    for fuse in (
        lambda: fusion.fuse(p, [1, 1], image, 100),
        lambda: fusion.fuse_by_average(p, image),
        lambda: fusion.fuse_by_score(p, [1, 1], image),
    ):
        with pytest.raises(ValueError, match=r"without a region|negative"):
            fuse()
