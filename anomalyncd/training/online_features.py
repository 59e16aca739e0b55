"""Class tokens as published: new views of every region go through the whole network."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from anomalyncd.models.model import Model
from anomalyncd.runtime.distributed import World
from anomalyncd.training.augmentation import draw_parameters, training_views
from anomalyncd.training.training_set import Pixels


@dataclass(frozen=True)
class OnlineFeatures:
    """Makes new views at every step; shared among the processes that train together."""

    model: Model
    pixels: Pixels
    world: World

    def class_tokens(self, indices: Tensor, generator: torch.Generator) -> Tensor:
        """Two views' class tokens: (2b, width), view 1 of all regions first.

        Args:
            indices: (b,) regions, ascending.
            generator: of the views. Every process draws all of them, and works on its share.
        """
        mine = self.world.share(len(indices))
        images, masks = self.pixels.rows(indices[mine])
        model = self.model
        views = []
        for _ in range(2):
            params = draw_parameters(
                len(indices), self.pixels.data.stored_size - model.image_size, generator
            )
            views.append(
                training_views(
                    images, masks, model.image_size, model.mean, model.std, params.rows(mine)
                )
            )
        features = model(torch.cat([x for x, _ in views]), torch.cat([m for _, m in views]))
        return self.world.gather_views(features, len(indices))
