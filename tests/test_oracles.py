"""The plain implementations in `tests/oracles/` give the package's results: benchmarks are fair."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from anomalyncd.config import TrainConfig
from anomalyncd.data.images import read_map
from anomalyncd.models.heads import Heads
from anomalyncd.models.mask_guided_vit import MaskGuidedViT
from anomalyncd.models.model import Model
from anomalyncd.training import sampling, schedule, train
from anomalyncd.training.state import TrainingState
from anomalyncd.training.training_set import TrainingSet
from tests.helpers.product import cut, product
from tests.helpers.training import drawn_regions
from tests.oracles import fit as plain_fit
from tests.oracles.cutting import cut as plain_cut
from tests.oracles.vit import class_tokens


def model(masked_blocks: int = 2, side: int = 32, **options: object) -> Model:
    torch.manual_seed(0)
    shape = {"img_size": side, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 3}
    vit = VisionTransformer(num_classes=0, **(shape | options)).eval()
    heads = Heads(24, 5, n_heads=2, hidden=16, bottleneck=8)
    half = (0.5, 0.5, 0.5)
    return Model(MaskGuidedViT(vit, masked_blocks), heads, n_base=2, mean=half, std=half)


@pytest.mark.parametrize("masked_blocks", [0, 1, 3])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"patch_size": 16},
        {"reg_tokens": 2, "init_values": 0.1, "no_embed_class": True},
        {"pre_norm": True, "qk_norm": True, "qkv_bias": False},
    ],
    ids=["plain", "large_patches", "registers", "normed"],
)
def test_class_tokens(masked_blocks: int, options: dict[str, object]) -> None:
    network = model(masked_blocks, **options)
    images = torch.randn(5, 3, 32, 32)
    masks = (torch.rand(5, 1, 32, 32) < torch.linspace(0, 1, 5)[:, None, None, None]).float()
    with torch.no_grad():
        torch.testing.assert_close(
            class_tokens(network, images, masks), network(images, masks), rtol=1e-4, atol=1e-5
        )


def test_a_plain_training_step_equals_ours(tmp_path: Path) -> None:
    regions = TrainingSet(drawn_regions(9, 0), drawn_regions(7, 1), np.arange(7) % 2)
    # one epoch of one batch is one step; a high rate makes what is learned stand out
    config = TrainConfig(epochs=1, batch_size=16, learning_rate=0.1)
    before = model()
    ours, plain = copy.deepcopy(before), copy.deepcopy(before)
    (terms,) = train.train(
        ours,
        regions,
        config,
        seed=3,
        state=TrainingState(tmp_path / "state", ""),
        on_epoch=lambda epoch, figures: None,
    )

    stream = torch.Generator().manual_seed(sampling.epoch_seed(3, 0))
    (batch,) = sampling.draw_batches(7, 9, 16, stream)
    optimizer = schedule.make_optimizer(plain, config)
    found = plain_fit.step(plain, optimizer, regions, batch.sort().values, config, stream)

    np.testing.assert_allclose(found, terms, rtol=2e-3)
    start = dict(before.trainable())
    for (name, a), (_, b) in zip(ours.trainable(), plain.trainable(), strict=True):
        change, expected = a - start[name], b - start[name]
        assert change.norm() > 0
        # views agree to a grey level, so what is learned from them agrees to a little
        assert (change - expected).norm() <= 0.05 * expected.norm() + 1e-7, name


def test_cropped_regions(tmp_path: Path) -> None:
    dataset = product(tmp_path)
    found = cut(tmp_path, dataset)
    regions = found.regions
    maps = [read_map(tmp_path / "maps" / "t" / f"{i}.png") for i in range(4)]
    plain = plain_cut([s.image for s in dataset.samples], maps, *found.search_range, side=64)
    np.testing.assert_array_equal([region.image for region in plain], regions.images)
    np.testing.assert_array_equal([region.mask for region in plain], regions.masks)
    np.testing.assert_array_equal([region.area for region in plain], regions.areas)
    np.testing.assert_allclose([region.score for region in plain], regions.scores, rtol=1e-5)
