"""What changes from epoch to epoch: the learning rate and the teacher's temperature."""

from __future__ import annotations

import math

import torch

from anomalyncd.config import TrainConfig
from anomalyncd.models.model import Model


def make_optimizer(model: Model, config: TrainConfig) -> torch.optim.SGD:
    """SGD with momentum; weight decay on matrices only."""
    parameters = [p for _, p in model.trainable()]
    matrices = {
        "params": [p for p in parameters if p.ndim > 1],
        "weight_decay": config.weight_decay,
    }
    vectors = {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0}
    return torch.optim.SGD([matrices, vectors], lr=config.learning_rate, momentum=config.momentum)


def learning_rate(config: TrainConfig, epoch: int) -> float:
    """Cosine over the epochs, constant within one."""
    share = (1 + math.cos(math.pi * epoch / config.epochs)) / 2
    return config.final_learning_rate + share * (config.learning_rate - config.final_learning_rate)


def teacher_temperature(config: TrainConfig, epoch: int) -> float:
    """τ_t of an epoch counted from 0: falls in equal steps, each held some epochs, then stays."""
    step = min(epoch // config.temperature_hold, config.temperature_steps - 1)
    done = step / max(config.temperature_steps - 1, 1)
    return config.teacher_temperature + done * (
        config.final_teacher_temperature - config.teacher_temperature
    )
