"""Heads: their sizes, how they start, and what their cosines do not depend on."""

from __future__ import annotations

import torch
from torch import nn

from anomalyncd.models.heads import Heads


def heads() -> Heads:
    torch.manual_seed(0)
    return Heads(48, 9, n_heads=3, hidden=80, bottleneck=24)


def test_the_published_sizes_are_the_defaults() -> None:
    published = Heads(8, 5)
    assert published.prototypes.shape == (4, 5, 8)
    sizes = [tuple(p.shape) for p in published.projector.parameters() if p.ndim == 2]
    assert sizes == [(2048, 8), (2048, 2048), (256, 2048)]


def test_heads_start_as_published() -> None:
    start = heads()
    linear = [layer for layer in start.projector if isinstance(layer, nn.Linear)]
    assert len(linear) == 3
    for layer in linear:
        assert abs(float(layer.weight.detach().std()) - 0.02) < 0.001
        assert not layer.bias.any()
    bound = 48**-0.5
    assert 0.98 * bound < start.prototypes.abs().max() <= bound
    assert abs(float(start.prototypes.detach().mean())) < 0.05 * bound
    assert not torch.equal(start.prototypes[0], start.prototypes[1]), "else all heads agree"


def test_a_head_gives_cosines() -> None:
    start, features = heads(), torch.randn(7, 48)
    found = start.classify(features)
    assert found.shape == (3, 7, 9)
    expected = torch.cosine_similarity(features[None, :, None], start.prototypes[:, None], dim=-1)
    torch.testing.assert_close(found, expected)
    with torch.no_grad():
        start.prototypes *= 3
    torch.testing.assert_close(start.classify(5 * features), expected)


def test_projections_have_no_last_nonlinearity() -> None:
    start, features = heads(), torch.randn(200, 48)
    found = start.project(features)
    assert found.shape == (200, 24)
    x = features
    for i in (0, 2, 4):
        layer = start.projector[i]
        assert isinstance(layer, nn.Linear)
        x = nn.functional.linear(x, layer.weight, layer.bias)
        x = nn.functional.gelu(x) if i < 4 else x
    torch.testing.assert_close(found, x)
