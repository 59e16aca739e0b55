"""The two networks of a run as modules that can be traced: arrays in, arrays out, no branches."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anomalyncd.detectors.reference import known_good, pile
from anomalyncd.detectors.reference.known_good import KnownGood
from anomalyncd.detectors.reference.panel import QUANTILE, SHARE, SIMILAR, Panel
from anomalyncd.detectors.reference.pile import Pile
from anomalyncd.inference.classify import novel_probabilities
from anomalyncd.models.model import Model
from anomalyncd.models.patch_features import PatchFeatures

_ROWS = 1024  # patches that are compared at once: bounds the memory of a distance matrix
_IMAGES = 4  # of a panel, likewise


class NetworkGraph(nn.Module):
    """Views of regions → the chosen head's distribution, how they look, and class tokens."""

    centre: Tensor
    scale: Tensor

    def __init__(
        self, model: Model, head: int, temperature: float, into: Sequence[int] | None = None
    ) -> None:
        """`into`: the class that each of the K classes has become, see `decisions.naming`."""
        super().__init__()
        self.into = None if into is None or [*into] == [*range(len(into))] else [*into]
        self.model, self.head, self.temperature = model, head, temperature
        for name, values in (("centre", model.mean), ("scale", model.std)):
            levels = 255 * torch.tensor(values, dtype=torch.float64)
            self.register_buffer(name, levels.float().view(1, 3, 1, 1))

    def forward(self, views: Tensor, masks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(n, s, s, 3) and (n, s, s) uint8 → (n, K), (n, width), (n, width)."""
        model = self.model
        # As `evaluation_view`, whose changes in place cannot be traced.
        x = (views.permute(0, 3, 1, 2).float() - self.centre) / self.scale
        mask = masks[:, None].float() / 255
        half = len(model.vit.blocks) // 2  # as `inference.appearance`
        appearance, tokens = model.vit.mask_means(x, mask, [half - 1]).unbind(1)
        logits = model.heads.classify(tokens)[self.head]
        probabilities = novel_probabilities(logits, model.n_base, self.temperature).float()
        if self.into is not None:
            probabilities = probabilities @ torch.eye(len(self.into))[self.into]
        return probabilities, appearance, tokens


class PileGraph(nn.Module):
    """A photograph and which members of the panel are left out → its scores, enlarged."""

    def __init__(self, learned: Pile) -> None:
        super().__init__()
        self.features = _Features(learned.features)
        self.panel = PanelGraph(learned.panel)
        self.map_size = learned.config.map_size

    def forward(self, photograph: Tensor, left_out: Tensor) -> Tensor:
        """(1, s, s, 3) uint8 and (members,) bool → (map_size, map_size)."""
        patches, grid = pile.unit_length(self.features(photograph)[0])
        return _enlarged(self.panel(patches, left_out), grid, self.map_size)


class PanelGraph(nn.Module):
    """`Panel.scores`, by operations that ONNX has."""

    patches: Tensor

    def __init__(self, panel: Panel) -> None:
        super().__init__()
        self.register_buffer("patches", panel.patches)

    def forward(self, patches: Tensor, left_out: Tensor) -> Tensor:
        """(p, d) of unit length and (members,) bool → (p,)."""
        nearest = []
        for start in range(0, len(self.patches), _IMAGES):
            part = self.patches[start : start + _IMAGES]
            closeness = patches @ part.flatten(0, 1).T
            nearest.append(closeness.view(len(patches), len(part), -1).amax(2))
        distances = (2 - 2 * torch.cat(nearest, 1)).clamp(min=0).sqrt()
        distances = torch.where(left_out, torch.inf, distances)
        # The rank-th smallest is the last of the largest ones.
        rank = max(1, math.ceil(QUANTILE * len(patches)))
        whole = distances.topk(len(patches) - rank + 1, dim=0).values[-1]
        most = min(SIMILAR, len(self.patches))
        similar = whole.topk(most, largest=False).indices
        ascending = distances[:, similar].topk(most, dim=1, largest=False).values
        # Those left out are infinite, so they come last and are not counted.
        counted = (~left_out).long().sum().clamp(max=most)
        place = SHARE * (counted - 1).float()
        below = place.floor().long()
        above = torch.minimum(below + 1, counted - 1)
        low, high = ascending[:, below], ascending[:, above]
        return low + (high - low) * (place - below.float())


class KnownGoodGraph(nn.Module):
    """A photograph at each size → its scores at each, enlarged."""

    def __init__(self, learned: KnownGood) -> None:
        super().__init__()
        self.scales = learned.scales
        self.features = nn.ModuleList(_Features(scale.features) for scale in learned.scales)
        self.map_size = learned.config.map_size

    def forward(self, *photographs: Tensor) -> tuple[Tensor, ...]:
        """(1, s, s, 3) uint8 of each size → (map_size, map_size) of each."""
        maps = []
        for scale, features, photograph in zip(
            self.scales, self.features, photographs, strict=True
        ):
            patches, grid = known_good.pooled(features(photograph))
            rows = patches @ scale.weight + scale.bias
            starts = range(0, len(rows), _ROWS)
            scores = torch.cat([scale.normal.scores(rows[i : i + _ROWS]) for i in starts])
            maps.append(_enlarged(scores, grid, self.map_size))
        return tuple(maps)


class _Features(nn.Module):
    """A photograph's patch features; its parameters are those of the features' network."""

    def __init__(self, features: PatchFeatures) -> None:
        super().__init__()
        self.compute = features
        networks = [one for one in vars(features).values() if isinstance(one, nn.Module)]
        self.networks = nn.ModuleList(networks)

    def forward(self, photograph: Tensor) -> list[Tensor]:
        return self.compute(photograph.permute(0, 3, 1, 2) / 255)


def _enlarged(scores: Tensor, grid: tuple[int, int], size: int) -> Tensor:
    patches = scores.view(1, 1, *grid)
    return F.interpolate(patches, (size, size), mode="bilinear")[0, 0]
