"""The backbone probe: features that separate classes score 1, others about 0."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from anomalyncd.types import Dataset, Labels, Sample

pytest.importorskip("tflite", reason="reads the teacher's weights")

from scripts import probe_backbone as probing

N = 24


@pytest.fixture
def drawn(tmp_path: Path) -> Dataset:
    """Two classes that differ in the defect's grey only; each mask has two far parts."""
    rng = np.random.default_rng(0)
    samples = [Sample("good/0", tmp_path / "unread.png")]
    for i in range(N):
        image, mask = rng.integers(0, 256, (100, 140, 3), np.uint8), np.zeros((100, 140), np.uint8)
        for part in (np.s_[10:20, 20:30], np.s_[60:75, 100:110]):
            image[part], mask[part] = (40 if i % 2 else 200), 255
        paths = tmp_path / f"{i}.png", tmp_path / f"{i}_mask.png"
        for array, path in zip((image, mask), paths, strict=True):
            Image.fromarray(array).save(path)
        samples.append(Sample(f"{i % 2}/{i}", *paths))
    targets = np.array([0, *(1 + i % 2 for i in range(N))])
    return Dataset(tuple(samples), Labels(("good", "bright", "dark"), targets, 0))


def test_one_region_contains_the_whole_defect(drawn: Dataset) -> None:
    defects = probing.cut_defects("drawn", drawn)
    assert defects.images.shape == (N, probing.SIDE, probing.SIDE, 3)
    np.testing.assert_array_equal(defects.targets, [1 + i % 2 for i in range(N)])
    halves = defects.masks[:, :, : probing.SIDE // 2], defects.masks[:, :, probing.SIDE // 2 :]
    assert all(half.max(axis=(1, 2)).min() == 255 for half in halves)


def test_separating_features_score_one_and_others_low(drawn: Dataset) -> None:
    sets = [probing.cut_defects("drawn", drawn)]
    generator = torch.Generator().manual_seed(0)
    grey = probing.probe(probing.masked_mean, sets, batch=7)["drawn"]
    assert (grey.nmi, grey.nmi_std, grey.accuracy) == pytest.approx((1, 0, 1))
    blind = probing.probe(lambda images, _: torch.randn(len(images), 3, generator=generator), sets)
    assert blind["drawn"].nmi < 0.3
    assert probing.mean_nmi({"a": grey, "b": grey}) == pytest.approx(1)


def test_masked_mean_ignores_what_the_mask_leaves_out() -> None:
    maps = torch.zeros(1, 2, 2, 2)
    maps[0, :, 0, 0] = torch.tensor([1.0, 2.0])
    maps[0, :, 0, 1] = torch.tensor([3.0, 6.0])
    maps[0, :, 1] = 100
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., :4, :4] = 1
    mask[..., :4, 4:6] = 1  # half of the second cell
    expected = torch.tensor([[(1 + 1.5) / 1.5, (2 + 3) / 1.5]])
    torch.testing.assert_close(probing.masked_mean(maps, mask), expected)
