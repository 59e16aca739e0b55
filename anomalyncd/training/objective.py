"""The whole loss of a batch, term by term (paper section 3.4)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from anomalyncd.config import TrainConfig
from anomalyncd.models.model import Model
from anomalyncd.training import losses
from anomalyncd.training.schedule import teacher_temperature
from anomalyncd.training.training_set import Batch

TERMS = ("total", "base_class", "novel_class", "base_contrast", "contrast")  # then one per head


def objective(
    model: Model, features: Tensor, batch: Batch, config: TrainConfig, epoch: int
) -> Tensor:
    """All terms of the loss: (len(TERMS) + n_heads,), the total first.

    Args:
        model: whose heads are used.
        features: (2b, width) class tokens, view 1 of the whole batch, then view 2.
        batch: what the views were made of.
        config: weights and temperatures.
        epoch: counted from 0, for the teacher's temperature.
    """
    logits = model.heads.classify(features)  # (heads, 2b, classes)
    projections = model.heads.project(features)
    by_view = logits.unflatten(1, (2, -1))
    novel = by_view[:, :, batch.n_base :].flatten(1, 2)
    if batch.votes is not None:
        own = novel[..., model.n_base :]  # as a prediction, which leaves base classes out
        per_head = losses.distillation(own, batch.votes.repeat(2, 1), config.student_temperature)
    else:
        per_head = _self_distillation(model, novel, batch, config, epoch)
    novel_class, contrast = per_head.mean(), losses.info_nce(projections)
    if batch.n_base:
        known = by_view[:, :, : batch.n_base].flatten(0, 2) / config.student_temperature
        targets = batch.labels[: batch.n_base].repeat(2 * len(logits))
        base_class = F.cross_entropy(known, targets)
        base_contrast = losses.supervised_contrastive(projections, batch.labels)
        weight = config.sup_weight
    else:
        base_class = base_contrast = features.new_zeros(())
        weight = 0.0
    total = weight * (base_contrast + base_class) + (1 - weight) * (contrast + novel_class)
    terms = torch.stack([total, base_class, novel_class, base_contrast, contrast])
    return torch.cat([terms, per_head])


def _self_distillation(
    model: Model, novel: Tensor, batch: Batch, config: TrainConfig, epoch: int
) -> Tensor:
    """L_cls^u of each head, with its regulariser."""
    if config.pseudo_label_correction:
        normal_weight = (0.5 - batch.scores).clamp(min=0).repeat(2)
    else:
        normal_weight = novel.new_zeros(novel.shape[1])
    per_head = losses.self_distillation(
        novel,
        n_base=model.n_base,
        normal_weight=normal_weight,
        teacher_temperature=teacher_temperature(config, epoch),
        student_temperature=config.student_temperature,
    )
    gap = losses.mean_entropy_gap(novel, config.student_temperature)
    return per_head + config.memax_weight * gap
