"""The training loop: two-view self-distillation of the novel regions beside the base set.

Every epoch draws from its own seeded stream, so that a resumed run sees what an uninterrupted one
would have seen. Where class tokens come from is the business of `exact` and `bank`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from anomalyncd.config import TrainConfig
from anomalyncd.errors import InputError
from anomalyncd.models.checkpoint import TrainingState
from anomalyncd.models.model import Model
from anomalyncd.runtime import devices
from anomalyncd.runtime.distributed import ALONE, World
from anomalyncd.training import losses
from anomalyncd.training.cached_features import CachedFeatures
from anomalyncd.training.online_features import OnlineFeatures
from anomalyncd.training.training_set import Batch, Pixels, Targets, TrainingSet

TERMS = ("total", "base_class", "novel_class", "base_contrast", "contrast")  # then one per head


def fit(
    model: Model,
    data: TrainingSet,
    config: TrainConfig,
    *,
    seed: int,
    state: TrainingState,
    on_epoch: Callable[[int, dict[str, float]], None],
    on_views: Callable[[int, int, int], None] = lambda done, total, kept: None,
    world: World = ALONE,
) -> list[list[float]]:
    """Train the last block and the heads in place.

    Args:
        model: on the device to train on.
        data: regions to learn from.
        config: the schedule.
        seed: of batches and views.
        state: where epochs are kept, to resume a killed run from; the bank lies beside it.
        on_epoch: told the epoch, counted from 0, and its mean figures, none without a batch.
        on_views: told how far a bank is, as `CachedFeatures.fill` does.
        world: the processes that share each batch's work; what is learned is the same for any
            number of them.

    Returns:
        The mean of every term per epoch: TERMS, then the novel-class loss of each head. A row is
        empty where the epoch's draws gave no batch of both kinds.

    Raises:
        InputError: a loss (its step is named) or a weight is not finite, or no batch could be made.
    """
    optimizer = make_optimizer(model, config)
    history = state.load(model, optimizer)
    bank = features_beside(state.path)
    device = next(model.parameters()).device
    model.vit.precision = devices.precision(config.precision, device)
    if history and state.epochs_done == config.epochs:  # it was killed after its last epoch
        CachedFeatures.remove(bank)
        return history
    targets = Targets(data, device)
    source: AbstractContextManager[OnlineFeatures | CachedFeatures]
    if config.features == "cached":
        source = _banked(model, data, config, seed, bank, state.fingerprint, on_views)
    else:
        source = nullcontext(OnlineFeatures(model, Pixels(data, device), world))
    with source as views:
        for epoch in range(state.epochs_done, config.epochs):
            stream = torch.Generator().manual_seed(_epoch_seed(seed, epoch))
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(config, epoch)
            steps = []
            for indices in draw_batches(data.n_base, len(data.novel), config.batch_size, stream):
                order = indices.sort().values  # base regions come first
                features = views.class_tokens(order, stream)
                batch = targets.batch(order)
                steps.append(step(model, optimizer, features, batch, config, epoch, world))
            # a handful of regions may give batches of one kind only
            history.append(_epoch_means(torch.stack(steps).cpu(), epoch) if steps else [])
            _require_finite_weights(model, optimizer, epoch)
            if world.is_first and (state.is_due or epoch + 1 == config.epochs):
                state.save(model, optimizer, epoch + 1, history)
            on_epoch(epoch, dict(zip(TERMS, history[-1], strict=False)))
    if not any(history):
        raise InputError(
            f"{data.n_base} base and {len(data.novel)} novel regions gave no batch of both kinds; "
            "give more images, a larger base set, or base=none"
        )
    return history


def features_beside(state: Path) -> Path:
    """Where the bank of the run lies that keeps its epochs in `state`."""
    return state.with_suffix(".bank")


@contextmanager
def _banked(
    model: Model,
    data: TrainingSet,
    config: TrainConfig,
    seed: int,
    folder: Path,
    fingerprint: str,
    on_views: Callable[[int, int, int], None],
) -> Iterator[CachedFeatures]:
    """A bank that is removed when training ends; whatever stops it earlier, a resume reuses it."""
    bank, is_kept = None, False
    try:
        bank = CachedFeatures.fill(
            *(model, data, config.cached_views, seed, folder), fingerprint=fingerprint, on_views=on_views
        )
        yield bank
    except InputError as error:  # of no use to another try, unless it was a disk that was full
        is_kept = isinstance(error.__cause__, OSError)
        raise
    except BaseException:
        is_kept = True
        raise
    finally:
        if bank:
            bank.close()
        if not is_kept:
            CachedFeatures.remove(folder)


def step(
    model: Model,
    optimizer: torch.optim.Optimizer,
    features: Tensor,
    batch: Batch,
    config: TrainConfig,
    epoch: int,
    world: World = ALONE,
) -> Tensor:
    """Learn from a batch; its terms as `objective` gives them, without a graph."""
    terms = objective(model, features, batch, config, epoch)
    optimizer.zero_grad()
    terms[0].backward()
    world.average_gradients(model)
    optimizer.step()
    return terms.detach()


def objective(
    model: Model, features: Tensor, batch: Batch, config: TrainConfig, epoch: int
) -> Tensor:
    """All terms of the loss (reference section 8): (len(TERMS) + n_heads,), the total first.

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
    if config.pseudo_label_correction:
        normal_weight = (0.5 - batch.scores).clamp(min=0).repeat(2)
    else:
        normal_weight = novel.new_zeros(novel.shape[1])
    per_head = losses.self_distillation(
        novel,
        n_base=model.n_base,
        normal_weight=normal_weight,
        teacher_temperature=config.teacher_temperature_at(epoch),
        student_temperature=config.student_temperature,
    )
    gap = losses.mean_entropy_gap(novel, config.student_temperature)
    per_head = per_head + config.memax_weight * gap
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


def draw_batches(
    n_base: int, n_novel: int, batch_size: int, stream: torch.Generator
) -> Iterator[Tensor]:
    """Draw n_base + n_novel regions with replacement, both kinds with equal total mass.

    Yields:
        (≤ batch_size,) indices, base regions first in the numbering. With a base set, a batch of
        one kind only is left out, as in the release.
    """
    mass = torch.ones(n_base + n_novel, dtype=torch.float64)
    if n_base:
        mass[:n_base] /= n_base
        mass[n_base:] /= n_novel
    drawn = torch.multinomial(mass, len(mass), replacement=True, generator=stream)
    for batch in drawn.split(batch_size):
        if n_base == 0 or 0 < int((batch < n_base).sum()) < len(batch):
            yield batch


def last_means(history: list[list[float]]) -> list[float]:
    """The row of the last epoch that had a batch."""
    return next(row for row in reversed(history) if row)


def best_head(history: list[list[float]]) -> int:
    """The head with the lowest mean novel-class loss over the last epoch that had a batch."""
    return int(np.argmin(last_means(history)[len(TERMS) :]))


def _epoch_seed(seed: int, epoch: int) -> int:
    return int(np.random.SeedSequence((seed, epoch)).generate_state(1, np.uint64)[0] >> 1)


def _require_finite_weights(model: Model, optimizer: torch.optim.SGD, epoch: int) -> None:
    """The last step's loss was that of the weights before it."""
    trained = [(name, p.detach()) for name, p in model.trainable()]
    momenta = [(f"the momentum of {n}", optimizer.state[p]) for n, p in model.trainable()]
    trained += [
        (n, s["momentum_buffer"]) for n, s in momenta if s.get("momentum_buffer") is not None
    ]
    if not torch.stack([tensor.isfinite().all() for _, tensor in trained]).all():
        name = next(name for name, tensor in trained if not tensor.isfinite().all())
        raise InputError(
            f"{name} is not finite after epoch {epoch + 1}; lower train.learning_rate, or check the "
            "backbone's weights"
        )


def _epoch_means(steps: Tensor, epoch: int) -> list[float]:
    broken = ~steps.isfinite().all(dim=1)
    if broken.any():
        step = int(broken.nonzero()[0]) + 1
        raise InputError(
            f"the loss is not a finite number at epoch {epoch + 1}, step {step}: "
            f"{dict(zip(TERMS, steps[step - 1].tolist(), strict=False))}; "
            "lower train.learning_rate, or check the backbone's weights"
        )
    return steps.mean(0).tolist()
