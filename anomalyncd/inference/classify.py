"""Regions → distributions over the novel classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anomalyncd.errors import InputError
from anomalyncd.inference.assignment import Predictions as Predictions
from anomalyncd.inference.assignment import assign as assign
from anomalyncd.models.model import Model
from anomalyncd.runtime import console
from anomalyncd.training import augmentation
from anomalyncd.types import Regions


@dataclass(frozen=True)
class Classified:
    """What the network says of each region."""

    tokens: NDArray[np.float32]  # (n, width) class tokens, before the heads
    probabilities: NDArray[np.float64]  # (heads, n, novel classes), each row a distribution


@torch.inference_mode()
def classify(model: Model, regions: Regions, *, temperature: float = 0.1) -> Classified:
    """Classify regions from their evaluation view.

    Args:
        model: on the device to compute on.
        regions: any number.
        temperature: of the student.

    Raises:
        InputError: a probability is not finite.
    """
    device = next(model.parameters()).device
    tokens = []
    with console.steps("Classifying") as step:
        for start in range(0, len(regions), model.forward_batch):
            part = slice(start, start + model.forward_batch)
            images = torch.from_numpy(np.array(regions.images[part])).to(device)
            masks = torch.from_numpy(np.array(regions.masks[part])).to(device)
            x, mask = augmentation.evaluation_view(
                images, masks, model.image_size, model.mean, model.std
            )
            # Rounding depends on the number of rows of a matrix product, in bfloat16 in the fourth
            # digit: alone, a region gets the same class among any others, as groups on a CPU are
            # small anyway.
            together = 1 if x.device.type == "cpu" else len(x)
            views = zip(x.split(together), mask.split(together), strict=True)
            tokens += [model(*view) for view in views]
            step(min(part.stop, len(regions)), len(regions))
    logits = torch.cat([model.heads.classify(part) for part in tokens], dim=1)
    found = novel_probabilities(logits, model.n_base, temperature)
    broken = ~found.isfinite().all(dim=-1).all(dim=0)
    if broken.any():
        raise InputError(
            f"{int(broken.sum())} of {len(broken)} regions have no finite probabilities; train "
            "again with a lower train.learning_rate, or check the backbone's weights"
        )
    return Classified(torch.cat(tokens).float().cpu().numpy(), found.cpu().numpy())


def novel_probabilities(logits: Tensor, n_base: int, temperature: float = 0.1) -> Tensor:
    """(..., classes) logits → (..., novel classes): base entries set to 0 and renormalised."""
    return (logits.double() / temperature)[..., n_base:].softmax(-1)
