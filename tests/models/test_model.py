"""The settings of attention and training reach the network that is built of them."""

from __future__ import annotations

import torch

from anomalyncd.config import AttentionConfig, TrainConfig
from anomalyncd.models import model
from anomalyncd.models.backbone import Backbone
from tests.helpers.training import small_model


def test_a_network_is_built_as_the_settings_say() -> None:
    vit = small_model().vit.vit
    stock = Backbone(vit, "file", "hash", mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    attention = AttentionConfig(
        masked_blocks=1, masked_queries="all_tokens", mask_pooling="max", mask_threshold=0.3
    )
    train = TrainConfig(heads=3, hidden=20, bottleneck=6)
    network = model.build(stock, attention, train, n_base=2, n_novel=5)
    assert (network.vit.first_masked, network.vit.mask_on) == (2, "all_tokens")
    assert (network.vit.keep_pool, network.vit.keep_threshold) == ("max", 0.3)
    assert network.heads.prototypes.shape == (3, 7, 24)
    sizes = [tuple(p.shape) for p in network.heads.projector.parameters() if p.ndim == 2]
    assert sizes == [(20, 24), (20, 20), (6, 20)]
    assert (network.n_base, network.image_size, network.forward_batch) == (2, 32, 64)
    assert (network.mean, network.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def test_what_trains_and_what_is_frozen_are_all() -> None:
    network = small_model()
    trainable, frozen = dict(network.trainable()), dict(network.frozen())
    assert not trainable.keys() & frozen.keys()
    assert trainable.keys() | frozen.keys() == dict(network.named_parameters()).keys()
    parts = {name.rpartition(".blocks.")[2].partition(".")[0] for name in trainable}
    assert parts == {"2", "heads"}
    assert all(name.startswith("vit.") for name in frozen)


def test_views_go_through_in_parts_in_their_order() -> None:
    network = small_model()
    x, masks = torch.rand(5, 3, 32, 32), torch.ones(5, 1, 32, 32)
    whole = network(x, masks)
    network.forward_batch = 2
    assert [len(part) for part, _ in network.in_parts(x, masks)] == [2, 2, 1]
    torch.testing.assert_close(network(x, masks), whole)
