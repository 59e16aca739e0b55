"""The training loop: two-view self-distillation of the novel regions beside the base set.

Every epoch has a random generator of its own, so that a resumed run sees what an uninterrupted one
would have seen. Where class tokens come from is delegated to `online_features` and
`cached_features`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from anomalyncd.config import TrainConfig
from anomalyncd.errors import InputError
from anomalyncd.models.model import Model
from anomalyncd.runtime import devices
from anomalyncd.runtime.distributed import ALONE, World
from anomalyncd.training.cached_features import CachedFeatures
from anomalyncd.training.objective import TERMS, objective
from anomalyncd.training.online_features import OnlineFeatures
from anomalyncd.training.sampling import draw_batches, epoch_seed
from anomalyncd.training.schedule import learning_rate, make_optimizer
from anomalyncd.training.state import TrainingState
from anomalyncd.training.training_set import Batch, Pixels, Targets, TrainingSet


def train(
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
        state: where epochs are kept, to resume a killed run from; cached features lie beside it.
        on_epoch: called with the epoch, counted from 0, and its mean terms; none without a batch.
        on_views: called as features are cached, as `CachedFeatures.fill` does.
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
    folder = features_beside(state.path)
    device = next(model.parameters()).device
    # A run that is resumed on another processor continues in the precision it began with.
    model.vit.precision = state.precision or devices.precision(config.precision, device)
    if history and state.epochs_done == config.epochs:  # it ended after its last epoch
        CachedFeatures.remove(folder)
        _require_a_batch(history, data)
        return history
    targets = Targets(data, device)
    source: AbstractContextManager[OnlineFeatures | CachedFeatures]
    if config.features == "cached":
        source = _cached(model, data, config, seed, folder, state.fingerprint, on_views, world)
    else:
        source = nullcontext(OnlineFeatures(model, Pixels(data, device), world))
    with source as views:
        for epoch in range(state.epochs_done, config.epochs):
            generator = torch.Generator().manual_seed(epoch_seed(seed, epoch))
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(config, epoch)
            steps = []
            for drawn in draw_batches(data.n_base, len(data.novel), config.batch_size, generator):
                indices = drawn.sort().values  # base regions come first
                features = views.class_tokens(indices, generator)
                batch = targets.batch(indices)
                steps.append(step(model, optimizer, features, batch, config, epoch, world))
            # a handful of regions may give batches of one kind only
            history.append(_epoch_means(torch.stack(steps).cpu(), epoch) if steps else [])
            _require_finite_weights(model, optimizer, epoch)
            if world.is_first and (state.is_due or epoch + 1 == config.epochs):
                state.save(model, optimizer, epoch + 1, history)
            on_epoch(epoch, dict(zip(TERMS, history[-1], strict=False)))
    _require_a_batch(history, data)
    return history


def features_beside(state: Path) -> Path:
    """The folder of cached features of a run that saves its epochs to `state`."""
    return state.with_suffix(".features")


@contextmanager
def _cached(
    model: Model,
    data: TrainingSet,
    config: TrainConfig,
    seed: int,
    folder: Path,
    fingerprint: str,
    on_views: Callable[[int, int, int], None],
    world: World,
) -> Iterator[CachedFeatures]:
    """Features, removed when training ends; kept on interruption, so that a resume reuses them."""
    features, is_kept = None, False
    try:
        features = CachedFeatures.fill(
            model,
            data,
            config.cached_views,
            seed,
            folder,
            fingerprint=fingerprint,
            on_views=on_views,
            world=world,
        )
        yield features
    except InputError as error:  # another attempt cannot use them, except after a full disk
        is_kept = isinstance(error.__cause__, OSError)
        raise
    except BaseException:
        is_kept = True
        raise
    finally:
        if features:
            features.close()
        if world.is_first and not is_kept:
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
    """One optimiser step on a batch; returns the terms of `objective`, detached."""
    terms = objective(model, features, batch, config, epoch)
    optimizer.zero_grad()
    terms[0].backward()
    world.average_gradients(model)
    optimizer.step()
    return terms.detach()


def last_means(history: list[list[float]]) -> list[float]:
    """The row of the last epoch that had a batch."""
    return next(row for row in reversed(history) if row)


def best_head(history: list[list[float]]) -> int:
    """The head with the lowest mean novel-class loss over the last epoch that had a batch."""
    return int(np.argmin(last_means(history)[len(TERMS) :]))


def _require_a_batch(history: list[list[float]], data: TrainingSet) -> None:
    if not any(history):
        raise InputError(
            f"{data.n_base} base and {len(data.novel)} novel regions gave no batch of both kinds; "
            "give more images, a larger base set, or base=none"
        )


def _require_finite_weights(model: Model, optimizer: torch.optim.SGD, epoch: int) -> None:
    """Check the weights after the last step too, which no loss has used yet."""
    trained = [(name, p.detach()) for name, p in model.trainable()]
    momenta = [(f"the momentum of {n}", optimizer.state[p]) for n, p in model.trainable()]
    trained += [
        (n, s["momentum_buffer"]) for n, s in momenta if s.get("momentum_buffer") is not None
    ]
    if not torch.stack([tensor.isfinite().all() for _, tensor in trained]).all():
        name = next(name for name, tensor in trained if not tensor.isfinite().all())
        raise InputError(
            f"{name} is not finite after epoch {epoch + 1}; lower train.learning_rate, or check "
            "the backbone's weights"
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
