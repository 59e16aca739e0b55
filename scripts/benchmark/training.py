"""The frozen blocks, steps, epochs and whole trainings against the plain forward pass."""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from anomalyncd.config import (
    TrainConfig,
)
from anomalyncd.runtime.distributed import ALONE
from anomalyncd.training import train
from anomalyncd.training.cached_features import CachedFeatures
from anomalyncd.training.online_features import OnlineFeatures
from anomalyncd.training.sampling import draw_batches
from anomalyncd.training.schedule import make_optimizer
from anomalyncd.training.state import TrainingState
from anomalyncd.training.training_set import Pixels, Targets, TrainingSet
from scripts.benchmark.harness import Row, benchmark, milliseconds, operations, peak, row
from scripts.benchmark.inputs import (
    BASE_8,
    EMBEDDED,
    SMALL_8,
    SMALL_16,
    TINY,
    batch_size,
    drawn_pixels,
    drawn_set,
    epochs,
    like_screw,
    network,
    precision_of,
    view_side,
    views_at_once,
)
from tests.oracles import fit as plain_fit
from tests.oracles.vit import class_tokens as plain_class_tokens


@benchmark("frozen")
def bench_frozen(options: argparse.Namespace) -> list[Row]:
    """Class tokens of a batch of views, without gradients."""
    return [frozen_row(name, options) for name in (TINY, SMALL_16)]


@benchmark("frozen_small_8", by_name=True)
def bench_frozen_small_8(options: argparse.Namespace) -> list[Row]:
    """The same with 16 times as many pairs of tokens (a minute)."""
    return [frozen_row(SMALL_8, options)]


def frozen_row(name: str, options: argparse.Namespace) -> Row:
    model = network(name, view_side(options), options)
    model.forward_batch = n = views_at_once(options)
    x = torch.randn(n, 3, model.image_size, model.image_size, device=options.device)
    masks = (
        torch.from_numpy(drawn_pixels(n, model.image_size)[1]).to(options.device)[:, None].float()
    )
    masks /= 255

    @torch.inference_mode()
    def ours() -> None:
        model(x, masks)

    @torch.inference_mode()
    def plain() -> None:
        plain_class_tokens(model, x, masks)

    least = operations(ours) / peak(options.device, model.vit.precision)
    measured_on = f"{n} views of {model.image_size} px, {precision_of(model)}"
    return row(f"frozen blocks, {name}", measured_on, ours, plain, runs=3, least=least)


@benchmark("step")
def bench_step(options: argparse.Namespace) -> list[Row]:
    """One training step, views included: new views, and cached ones."""
    return step_rows(SMALL_16, options, runs=3)


@benchmark("step_small_8", by_name=True)
def bench_step_small_8(options: argparse.Namespace) -> list[Row]:
    """The same with 785 tokens an image (some minutes)."""
    return step_rows(SMALL_8, options, runs=1)


def step_rows(name: str, options: argparse.Namespace, runs: int) -> list[Row]:
    side = view_side(options)
    data = drawn_set(32, 32, side)
    config = TrainConfig(batch_size=batch_size(options))
    rows = []
    with Learner(name, side, data, config, options) as learner:
        order = learner.an_order()
        plain = partial(learner.plain_step, order)
        measured_on = f"{len(order)} regions of {side} px, {precision_of(learner.model)}"
        for features, views in (("online", learner.online), ("cached", learner.cached)):
            ours = partial(learner.step, views, order)
            least = learner.least_seconds(features, order)
            rows.append(
                row(f"step, {features}, {name}", measured_on, ours, plain, runs=runs, least=least)
            )
    return rows


@benchmark("epoch")
def bench_epoch(options: argparse.Namespace) -> list[Row]:
    """An epoch of `experiment=offline_cpu` on a category like screw; caching counts with its
    share of 50."""
    side, data, config = like_screw(options)
    rows = []
    with Learner(EMBEDDED, side, data, config, options) as learner:
        filling = milliseconds(learner.fill_cache)
        slow = learner.plain_epoch()
        for features, views in (("online", learner.online), ("cached", learner.cached)):
            fast = statistics.median(milliseconds(partial(learner.epoch, views)) for _ in range(3))
            note = f"{len(data)} regions of {side} px; plain from its steps"
            if features == "cached":
                fast += filling / config.epochs
                note += f"; filling {filling / 1000:.1f} s"
            rows.append(Row(f"epoch, {features}, {EMBEDDED}", note, fast, slow, slow / fast))
    return rows


@benchmark("run", by_name=True)
def bench_run(options: argparse.Namespace) -> list[Row]:
    """All 50 epochs of `experiment=offline_cpu` on a category like screw (a minute)."""
    return run_rows(EMBEDDED, *like_screw(options), ("cached",), options)


@benchmark("category", by_name=True)
def bench_category(options: argparse.Namespace) -> list[Row]:
    """All 50 epochs of an MVTec-sized category, online and cached (for a GPU)."""
    side = view_side(options)
    data = drawn_set(*((6, 6) if options.tiny else (1278, 130)), side)
    config = TrainConfig(batch_size=batch_size(options), epochs=epochs(options))
    return run_rows(BASE_8, side, data, config, ("online", "cached"), options)


def run_rows(
    name: str,
    side: int,
    data: TrainingSet,
    config: TrainConfig,
    sources: tuple[str, ...],
    options: argparse.Namespace,
) -> list[Row]:
    """Whole runs of `train.train`, each once; the plain way from its steps."""
    rows = []
    with Learner(name, side, data, config, options) as learner:
        order = learner.an_order()
        slow = learner.plain_epoch() * config.epochs
        for features in sources:
            fast = milliseconds(partial(learner.run, features))
            least = learner.least_seconds(features, order) * len(data) * config.epochs / len(order)
            if features == "cached":
                least += operations(learner.fill_cache) / learner.frozen_peak
            of_limit = 1000 * least / fast
            note = f"{len(data)} regions of {side} px, {config.epochs} epochs"
            note += "; plain from its steps"
            rows.append(Row(f"run, {features}, {name}", note, fast, slow, slow / fast, of_limit))
    return rows


class Learner:
    """A network that learns from drawn regions, a step at a time, in our way or the plain way."""

    def __init__(
        self,
        name: str,
        side: int,
        data: TrainingSet,
        config: TrainConfig,
        options: argparse.Namespace,
    ) -> None:
        self.data, self.config = data, config
        self.model = network(name, side, options, config)
        self.optimizer = make_optimizer(self.model, config)
        self.targets = Targets(data, options.device)
        self.stream = torch.Generator().manual_seed(0)
        self.online = OnlineFeatures(self.model, Pixels(data, options.device), ALONE)
        self._features: CachedFeatures | None = None

    def __enter__(self) -> Learner:
        self._folder = tempfile.TemporaryDirectory()
        self._files = (Path(self._folder.name, str(i)) for i in itertools.count())
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    @property
    def cached(self) -> CachedFeatures:
        return self._features or self.fill_cache()

    def fill_cache(self) -> CachedFeatures:
        folder = next(self._files)
        views = self.config.cached_views
        self._features = CachedFeatures.fill(
            self.model, self.data, views, 0, folder, fingerprint=""
        )
        return self._features

    def batches(self) -> Iterator[Tensor]:
        n_base, n_novel = self.data.n_base, len(self.data.novel)
        return draw_batches(n_base, n_novel, self.config.batch_size, self.stream)

    def an_order(self) -> Tensor:
        """Regions of one batch."""
        return next(self.batches()).sort().values

    def step(self, views: OnlineFeatures | CachedFeatures, order: Tensor) -> None:
        """What the loop of `train.train` does with a batch."""
        features = views.class_tokens(order, self.stream)
        train.step(
            self.model, self.optimizer, features, self.targets.batch(order), self.config, epoch=0
        )

    @property
    def frozen_peak(self) -> float:
        return peak(self.targets.labels.device, self.model.vit.precision)

    def least_seconds(self, features: str, order: Tensor) -> float:
        """What a step's operations take at the peak of the precision that each is done in."""
        others = operations(partial(self.step, self.cached, order))
        least = others / peak(self.targets.labels.device, torch.float32)
        if features == "online":
            all_of_it = operations(partial(self.step, self.online, order))
            least += max(all_of_it - others, 0) / self.frozen_peak
        return least

    def plain_step(self, order: Tensor) -> None:
        plain_fit.step(self.model, self.optimizer, self.data, order, self.config, self.stream)

    def plain_epoch(self) -> float:
        """Milliseconds, extrapolated from the median of three steps."""
        order = self.an_order()
        step = partial(self.plain_step, order)
        step()  # does not count
        return statistics.median(milliseconds(step) for _ in range(3)) * len(self.data) / len(order)

    def epoch(self, views: OnlineFeatures | CachedFeatures) -> None:
        for order in self.batches():
            self.step(views, order.sort().values)

    def run(self, features: str) -> None:
        train.train(
            self.model,
            self.data,
            replace(self.config, features=features),
            seed=0,
            state=TrainingState(next(self._files), ""),
            on_epoch=lambda epoch, figures: None,
        )
