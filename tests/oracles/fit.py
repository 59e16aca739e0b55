"""One training step the release's way: Pillow's views, every token through every block, SGD.

The losses are the product's, which are held to the release's own figures elsewhere: they are not
what costs time.
"""

from __future__ import annotations

import torch
from torch import Tensor

from anomalyncd.config import TrainConfig
from anomalyncd.models.model import Model
from anomalyncd.training import objective
from anomalyncd.training.augmentation import draw_parameters
from anomalyncd.training.training_set import Targets, TrainingSet
from tests.oracles.views import training_views
from tests.oracles.vit import class_tokens


def step(
    model: Model,
    optimizer: torch.optim.SGD,
    data: TrainingSet,
    order: Tensor,
    config: TrainConfig,
    stream: torch.Generator,
) -> Tensor:
    """Train on the regions `order` (b,), ascending, in epoch 0; return all terms of the loss."""
    device = next(model.parameters()).device
    images, masks = data.pixels(order)
    room = images.shape[1] - model.image_size
    views = [
        training_views(
            images,
            masks,
            model.image_size,
            model.mean,
            model.std,
            draw_parameters(len(order), room, stream),
        )
        for _ in range(2)
    ]
    x, moved = (torch.cat(both).to(device) for both in zip(*views, strict=True))
    batch = Targets(data, device).batch(order)
    terms = objective.objective(model, class_tokens(model, x, moved), batch, config, epoch=0)
    optimizer.zero_grad()
    terms[0].backward()
    optimizer.step()
    return terms.detach()
