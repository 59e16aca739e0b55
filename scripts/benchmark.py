"""How fast the parts are, each against the plain way to compute the same.

    python scripts/benchmark.py [names...] [--all] [--json FILE] [--device cuda] [--threads N]

Both sides run warmed up and in alternation; figures are medians. The plain way is the release's, as
`tests/oracles/` keeps it: Pillow's views one after the other, every token through every block,
attention by an (n, n) matrix, float32. "Of limit" is the share of the time that the machine could
not beat: the floating-point operations of our way at the measured peak of a matrix product in the
same precision, or the bytes that must be moved at the measured bandwidth. Networks are untrained
and regions drawn, which changes no time.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path

import cv2
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for the oracles

from anomalyncd.config import (
    AttentionConfig,
    BackboneConfig,
    FusionConfig,
    MebinConfig,
    RegionsConfig,
    TrainConfig,
)
from anomalyncd.detectors import map_store
from anomalyncd.detectors.files import FilesDetector
from anomalyncd.inference.classify import assign, classify
from anomalyncd.models import backbone
from anomalyncd.models import model as models
from anomalyncd.models.model import Model
from anomalyncd.regions import cropping, mebin_torch
from anomalyncd.regions.mebin import binarize_one, search_range
from anomalyncd.runtime import devices
from anomalyncd.runtime.distributed import ALONE
from anomalyncd.runtime.versions import versions
from anomalyncd.storage.cache import Cache
from anomalyncd.training import train
from anomalyncd.training.augmentation import draw_parameters, evaluation_view, training_views
from anomalyncd.training.cached_features import CachedFeatures
from anomalyncd.training.online_features import OnlineFeatures
from anomalyncd.training.sampling import draw_batches
from anomalyncd.training.schedule import make_optimizer
from anomalyncd.training.state import TrainingState
from anomalyncd.training.training_set import Pixels, Targets, TrainingSet
from anomalyncd.types import Dataset, Regions, Sample
from tests.oracles import cutting as plain_cutting
from tests.oracles import fit as plain_fit
from tests.oracles import views as plain_views
from tests.oracles.mebin import binarize_one as plain_binarize_one
from tests.oracles.vit import class_tokens as plain_class_tokens

N_MAPS = 8  # measured per size: enough to vary, few enough for the plain loop
N_BASE_CLASSES, N_NOVEL_CLASSES = 2, 5
TINY, SMALL_16, SMALL_8, BASE_8 = "ViT-Ti/16", "ViT-S/16", "ViT-S/8", "ViT-B/8"
EMBEDDED = "embedded"
NETWORKS = {
    TINY: "vit_tiny_patch16_224",
    EMBEDDED: "embedded",
    SMALL_16: "vit_small_patch16_224",
    SMALL_8: "vit_small_patch8_224",
    BASE_8: "vit_base_patch8_224",
}


@dataclass(frozen=True)
class Row:
    """One comparison."""

    name: str
    measured_on: str
    ours: float  # ms
    plain: float  # ms
    ratio: float  # plain / ours
    of_limit: float | None = None  # least possible time / ours; None: no limit is known


Measure = Callable[[argparse.Namespace], list[Row]]


@dataclass(frozen=True)
class Benchmark:
    measure: Measure
    one_core: bool  # else as many threads as --threads says
    by_name: bool  # takes long, or needs a GPU: only when asked for


BENCHMARKS: dict[str, Benchmark] = {}


def benchmark(
    name: str, *, one_core: bool = False, by_name: bool = False
) -> Callable[[Measure], Measure]:
    """Register a benchmark under the name it is called by on the command line."""

    def register(measure: Measure) -> Measure:
        BENCHMARKS[name] = Benchmark(measure, one_core, by_name)
        return measure

    return register


def alternate(
    ours: Callable[[], object], plain: Callable[[], object], runs: int
) -> tuple[float, float]:
    """Median milliseconds of both, after one run of each that does not count."""
    times: dict[Callable[[], object], list[float]] = {ours: [], plain: []}
    for function in times:
        function()
    for _ in range(runs):
        for function, taken in times.items():
            taken.append(milliseconds(function))
    return statistics.median(times[ours]), statistics.median(times[plain])


def milliseconds(function: Callable[[], object]) -> float:
    wait_for_gpu()
    start = time.perf_counter()
    function()
    wait_for_gpu()
    return (time.perf_counter() - start) * 1000


def wait_for_gpu() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


@benchmark("mebin", one_core=True)
def bench_mebin(options: argparse.Namespace) -> list[Row]:
    """One map binarized: 64 thresholds at once, against one after the other."""
    rows = []
    category, source = category_maps(options)
    lo, hi = search_range(category)
    for side, runs in map_sides(options):
        maps = some_resized(category, side)

        def ours(maps: list[np.ndarray] = maps) -> None:
            for anomaly_map in maps:
                binarize_one(anomaly_map, lo, hi)

        def plain(maps: list[np.ndarray] = maps) -> None:
            for anomaly_map in maps:
                plain_binarize_one(anomaly_map, lo, hi)

        fast, slow = (total / len(maps) for total in alternate(ours, plain, runs))
        rows.append(Row(f"mebin {side} x {side}", source, fast, slow, slow / fast))
    return rows


@benchmark("mebin_torch", one_core=True)
def bench_mebin_torch(options: argparse.Namespace) -> list[Row]:
    """One map of a batch binarized by torch, against the plain loop and against `mebin`."""
    rows = []
    category, source = category_maps(options)
    lo, hi = search_range(category)
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    for side, runs in map_sides(options):
        maps = some_resized(category, side)

        def plain(maps: list[np.ndarray] = maps) -> None:
            for anomaly_map in maps:
                plain_binarize_one(anomaly_map, lo, hi)

        def fast_plain(maps: list[np.ndarray] = maps) -> None:
            for anomaly_map in maps:
                binarize_one(anomaly_map, lo, hi)

        for device in devices:
            # a GPU is measured with the many maps that it is meant for
            copies = 1 if device == "cpu" else 16
            batch = torch.from_numpy(np.stack(maps)).to(device).repeat(copies, 1, 1)

            def ours(batch: torch.Tensor = batch) -> None:
                mebin_torch.binarize(batch, lo, hi).counts.cpu()  # waits for the device

            for against, other in (("plain loop", plain), ("mebin", fast_plain)):
                total, other_total = alternate(ours, other, runs)
                fast, slow = total / len(batch), other_total / len(maps)
                name = f"mebin_torch {side} x {side}, {device}, against {against}"
                measured_on = f"{source}; {1000 / fast:.0f} maps/s"
                rows.append(Row(name, measured_on, fast, slow, slow / fast))
    return rows


@benchmark("anomalib_mebin", one_core=True, by_name=True)
def bench_anomalib_mebin(options: argparse.Namespace) -> list[Row]:
    """One map binarized by torch, against anomalib's post-processor (a quarter of a minute)."""
    try:
        from anomalib.data import InferenceBatch
        from anomalib.post_processing import MEBinPostProcessor
    except ImportError as error:
        print(f"anomalib_mebin is left out: {error}; pip install 'anomalyncd[anomalib]'")
        return []
    category, source = category_maps(options)
    side = 160
    (anomaly_map,) = some_resized(category[-1:], side)
    batch = torch.from_numpy(anomaly_map)[None] / 255
    lo, hi = (peak / 255 for peak in search_range(category))
    post_processor = MEBinPostProcessor(enable_normalization=False)
    predictions = InferenceBatch(anomaly_map=batch, pred_score=batch.amax((1, 2)))
    fast, slow = alternate(
        lambda: mebin_torch.binarize(batch, lo, hi), lambda: post_processor(predictions), runs=1
    )
    name = f"mebin_torch {side} x {side}, cpu, against anomalib"
    return [Row(name, f"last of {source}", fast, slow, slow / fast)]


@benchmark("cropping")
def bench_cropping(options: argparse.Namespace) -> list[Row]:
    """Images decoded, binarized and cut on all cores, against one image after the other."""
    category = drawn_maps(16)
    levels, n, side = search_range(category), len(category), view_side(options)
    with drawn_product(category, options) as (dataset, stored, folder):
        fresh = caches(folder)

        def ours() -> None:
            cut_all(dataset, stored, levels, side, next(fresh))

        def plain() -> None:
            images = [sample.image for sample in dataset.samples]
            plain_cutting.cut(images, list(stored), *levels, cropping.stored_size(side))

        fast, slow = (total / n for total in alternate(ours, plain, runs=3))
        measured_on = f"{n} images {image_side(options)} px; {1000 / fast:.0f} images/s"
        return [Row("cropping, from file to regions", measured_on, fast, slow, slow / fast)]


@benchmark("views")
def bench_views(options: argparse.Namespace) -> list[Row]:
    """A batch's training views on the device, against Pillow's one region after the other."""
    n, side = views_at_once(options), view_side(options)
    stored = cropping.stored_size(side)
    images, masks = drawn_pixels(n, stored)
    here = torch.from_numpy(images), torch.from_numpy(masks)
    there = to_device((images, masks), options)
    half = (0.5, 0.5, 0.5)
    drawn = draw_parameters(n, stored - side, torch.Generator().manual_seed(0))

    def ours() -> None:
        training_views(*there, side, half, half, drawn)

    def plain() -> None:
        plain_views.training_views(*here, side, half, half, drawn)

    moved = n * side**2 * 4 * (1 + 4)  # bytes in, and float32 out, of three colours and the mask
    least = max(
        moved / bandwidth(options.device), operations(ours) / peak(options.device, torch.float32)
    )
    return [row("views", f"{n} of {side} px", ours, plain, runs=3, least=least)]


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
    """One training step, views included: fresh views, and views from the bank."""
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
    """An epoch of `experiment=offline_cpu` on a category like screw; filling the bank counts with
    its share of 50."""
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
    return run_rows(EMBEDDED, *like_screw(options), ("bank",), options)


@benchmark("category", by_name=True)
def bench_category(options: argparse.Namespace) -> list[Row]:
    """All 50 epochs of an MVTec-sized category, exact and from the bank (for a GPU)."""
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
    """Whole runs of `fit.fit`, each once; the plain way from its steps."""
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


@benchmark("prediction")
def bench_prediction(options: argparse.Namespace) -> list[Row]:
    """One new image: its region against the frozen blocks alone, and from file to class.

    Reading and cutting cost the same whatever the network; the published one is ViT-B/8.
    """
    return prediction_rows(SMALL_16, options, runs=15) + prediction_rows(BASE_8, options, runs=3)


def prediction_rows(name: str, options: argparse.Namespace, runs: int) -> list[Row]:
    model = network(name, view_side(options), options)
    stored_size = cropping.stored_size(model.image_size)
    one = drawn_regions(1, stored_size)
    images, masks = to_device((one.images, one.masks), options)
    x, mask = evaluation_view(images, masks, model.image_size, model.mean, model.std)
    visible = model.vit.attention_mask(mask)

    @torch.inference_mode()
    def frozen_alone() -> None:
        (model.vit.frozen_blocks if x.is_cuda else model.vit.visible_tokens)(x, visible)

    @torch.inference_mode()
    def plainly(images: Tensor, masks: Tensor) -> None:
        view = evaluation_view(images, masks, model.image_size, model.mean, model.std)
        model.heads.classify(plain_class_tokens(model, *view))

    of_region, plain_of_region = partial(classify, model, one), partial(plainly, images, masks)
    on = f"{name}, {model.image_size} px, {precision_of(model)}"
    rows = [
        row(
            "prediction of a region, against its frozen blocks",
            on,
            of_region,
            frozen_alone,
            runs=runs,
        ),
        row("prediction of a region", on, of_region, plain_of_region, runs=runs),
    ]

    maps_before = drawn_maps()
    levels = search_range(maps_before)  # as training has found it
    with drawn_product(maps_before[-1:], options) as (dataset, stored, folder):
        fresh = caches(folder)

        def ours() -> None:
            cut = cut_all(dataset, stored, levels, model.image_size, next(fresh))
            assign(classify(model, cut.regions)[0], cut.regions, FusionConfig())

        def plain() -> None:
            (image,) = (sample.image for sample in dataset.samples)
            found = plain_cutting.cut([image], list(stored), *levels, stored_size)
            for region in found:
                plainly(*to_device((region.image[None], region.mask[None]), options))

        on = f"{image_side(options)} px, {on}"
        rows += [
            row("from file to class, against its frozen blocks", on, ours, frozen_alone, runs=runs),
            row("from file to class", on, ours, plain, runs=runs),
        ]
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
        self._bank: CachedFeatures | None = None

    def __enter__(self) -> Learner:
        self._folder = tempfile.TemporaryDirectory()
        self._files = (Path(self._folder.name, str(i)) for i in itertools.count())
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    @property
    def cached(self) -> CachedFeatures:
        return self._bank or self.fill_cache()

    def fill_cache(self) -> CachedFeatures:
        folder = next(self._files)
        views = self.config.cached_views
        self._bank = CachedFeatures.fill(self.model, self.data, views, 0, folder, fingerprint="")
        return self._bank

    def batches(self) -> Iterator[Tensor]:
        n_base, n_novel = self.data.n_base, len(self.data.novel)
        return draw_batches(n_base, n_novel, self.config.batch_size, self.stream)

    def an_order(self) -> Tensor:
        """Regions of one batch."""
        return next(self.batches()).sort().values

    def step(self, views: OnlineFeatures | CachedFeatures, order: Tensor) -> None:
        """What the loop of `fit.fit` does with a batch."""
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


def row(
    name: str,
    measured_on: str,
    ours: Callable[[], object],
    plain: Callable[[], object],
    *,
    runs: int,
    least: float | None = None,
) -> Row:
    """Compare two ways, and ours with the `least` seconds that it could take."""
    fast, slow = alternate(ours, plain, runs)
    of_limit = None if least is None else least * 1000 / fast
    return Row(name, measured_on, fast, slow, slow / fast, of_limit)


def operations(function: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products (and attention) in a call."""
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


@cache
def peak(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of the fastest matrix product of some sizes."""
    best = 0.0
    sides = (512, 1024, 2048) if device.type == "cpu" else (4096, 8192, 16384)
    for side in sides:
        a = torch.randn(side, side, device=device, dtype=dtype)
        torch.mm(a, a)
        taken = min(milliseconds(partial(torch.mm, a, a)) for _ in range(5))
        best = max(best, 2 * side**3 / (taken / 1000))
    return best


@cache
def bandwidth(device: torch.device) -> float:
    """Bytes a second that a copy reads and writes."""
    source = torch.zeros(2**26, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    taken = min(milliseconds(partial(target.copy_, source)) for _ in range(5))
    return 2 * source.nbytes / (taken / 1000)


def network(
    name: str, side: int, options: argparse.Namespace, config: TrainConfig | None = None
) -> Model:
    """An untrained network on the device, in the precision that a run would take."""
    source = backbone.build(
        BackboneConfig(
            name=NETWORKS[TINY if options.tiny else name], pretrained=False, image_size=side
        )
    )
    model = models.build(
        source,
        AttentionConfig(),
        config or TrainConfig(),
        n_base=N_BASE_CLASSES,
        n_novel=N_NOVEL_CLASSES,
    )
    model.vit.precision = devices.precision("auto", options.device)
    return model.to(options.device)


def precision_of(model: Model) -> str:
    return str(model.vit.precision).removeprefix("torch.")


def view_side(options: argparse.Namespace) -> int:
    return 32 if options.tiny else 224


def image_side(options: argparse.Namespace) -> int:
    return 128 if options.tiny else 1024


def batch_size(options: argparse.Namespace) -> int:
    return 4 if options.tiny else 32


def views_at_once(options: argparse.Namespace) -> int:
    if options.tiny:
        return 4
    return 64 if options.device.type == "cpu" else 256  # a batch's two views; enough for a GPU


def epochs(options: argparse.Namespace) -> int:
    return 2 if options.tiny else 50


def like_screw(options: argparse.Namespace) -> tuple[int, TrainingSet, TrainConfig]:
    """Side, as many regions as screw and its base set give, and `experiment=offline_cpu`."""
    side = 32 if options.tiny else 112
    data = drawn_set(*((6, 6) if options.tiny else (376, 174)), side)
    config = TrainConfig(batch_size=batch_size(options), epochs=epochs(options), hidden=512)
    return side, data, config


def drawn_set(n_base: int, n_novel: int, side: int) -> TrainingSet:
    stored = cropping.stored_size(side)
    return TrainingSet(
        drawn_regions(n_novel, stored),
        drawn_regions(n_base, stored),
        np.arange(n_base) % N_BASE_CLASSES,
    )


def drawn_regions(n: int, side: int) -> Regions:
    images, masks = drawn_pixels(n, side)
    return Regions(
        images=images,
        masks=masks,
        image_index=np.arange(n),
        boxes=np.tile([0, 0, side, side], (n, 1)),
        areas=np.count_nonzero(masks, axis=(1, 2)),
        scores=np.linspace(0, 1, n),
        image_sizes=np.tile([side, side], (n, 1)),
    )


def drawn_pixels(n: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """(n, side, side, 3) noise, and (n, side, side) masks: discs over 1 to 28 % of the region."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side] - side / 2
    radii = rng.uniform(0.05, 0.3, n) * side
    masks = (np.hypot(x, y) < radii[:, None, None]).astype(np.uint8) * np.uint8(255)
    return rng.integers(0, 256, (n, side, side, 3), np.uint8), masks


@contextmanager
def drawn_product(
    category: list[np.ndarray], options: argparse.Namespace
) -> Iterator[tuple[Dataset, map_store.StoredMaps, Path]]:
    """Photographs on disk and their stored maps, in a folder that goes afterwards."""
    side = image_side(options)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        samples = []
        for i, anomaly_map in enumerate(category):
            for kind in ("images", "maps/t"):
                (folder / kind).mkdir(parents=True, exist_ok=True)
            photograph = cv2.resize(255 - anomaly_map, (side, side))
            cv2.imwrite(str(folder / "images" / f"{i}.png"), cv2.merge([photograph] * 3))
            cv2.imwrite(str(folder / "maps" / "t" / f"{i}.png"), anomaly_map)
            samples.append(Sample(f"t/{i}", folder / "images" / f"{i}.png"))
        dataset = Dataset(tuple(samples), labels=None)
        detector = FilesDetector(str(folder / "maps"), "c")
        stored = map_store.collect(detector, dataset, "c", Cache(folder / "cache"), settings={})
        yield dataset, stored, folder


def caches(folder: Path) -> Iterator[Cache]:
    """New ones, in which nothing is found."""
    return (Cache(folder / "caches" / str(i)) for i in itertools.count())


def cut_all(
    dataset: Dataset,
    stored: map_store.StoredMaps,
    levels: tuple[float, float],
    side: int,
    empty: Cache,
) -> cropping.Cropped:
    mebin = MebinConfig(search_range=list(levels))
    return cropping.crop_novel(dataset.samples, stored, mebin, RegionsConfig(), side, empty)


def to_device(
    pixels: tuple[np.ndarray, np.ndarray], options: argparse.Namespace
) -> tuple[Tensor, Tensor]:
    images, masks = (torch.from_numpy(array).to(options.device) for array in pixels)
    return images, masks


def map_sides(options: argparse.Namespace) -> tuple[tuple[int, int], ...]:
    """Sides of maps, and how often each is measured."""
    return ((64, 1),) if options.tiny else ((256, 9), (1024, 5))


def category_maps(options: argparse.Namespace) -> tuple[list[np.ndarray], str]:
    """Maps of one category, and what to call them."""
    maps = drawn_maps() if options.maps is None else read_maps(options.maps)
    return maps, f"{len(maps)} maps, {'drawn' if options.maps is None else options.maps.name}"


def some_resized(category: list[np.ndarray], side: int) -> list[np.ndarray]:
    """`N_MAPS` maps from all over the category, (side, side)."""
    return [
        cv2.resize(anomaly_map, (side, side), interpolation=cv2.INTER_LINEAR)
        for anomaly_map in category[:: max(1, len(category) // N_MAPS)][:N_MAPS]
    ]


def drawn_maps(n: int = 32, side: int = 256) -> list[np.ndarray]:
    """A category of maps (side, side) uint8 as a detector gives them: always the same ones.

    Smooth unrest everywhere, more of it in some than in others; three in four have one to three
    defects that stand out by different amounts; normalised together.
    """
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side]
    maps = []
    for i in range(n):
        unrest = cv2.GaussianBlur(rng.standard_normal((side, side)), (0, 0), side / 64)
        anomaly_map = rng.uniform(0.05, 0.2) * unrest / unrest.std()
        for _ in range(rng.integers(1, 4) if i % 4 else 0):
            centre_x, centre_y = rng.uniform(0, side, 2)
            radius = rng.uniform(0.02, 0.1) * side
            distance = np.hypot(x - centre_x, y - centre_y) / radius
            anomaly_map += rng.uniform(0.5, 1.5) * np.exp(-(distance**2))
        maps.append(anomaly_map)
    stack = np.stack(maps)
    stack = (stack - stack.min()) / (stack.max() - stack.min()) * 255
    return list(stack.astype(np.uint8))


def read_maps(folder: Path) -> list[np.ndarray]:
    """All PNG files under the folder, as grey maps of one category."""
    maps = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in sorted(folder.rglob("*.png"))]
    if not maps:
        sys.exit(f"no *.png under {folder}; --maps wants the folder of one category's anomaly maps")
    return [anomaly_map for anomaly_map in maps if anomaly_map is not None]


def main() -> None:
    """Measure, print a table and, if asked to, write the rows as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = [name for name, entry in BENCHMARKS.items() if not entry.by_name]
    parser.add_argument(
        "names", nargs="*", help=f"of {', '.join(BENCHMARKS)}; default: {', '.join(default)}"
    )
    parser.add_argument("--all", action="store_true", help="also those that take long")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    parser.add_argument("--maps", type=Path, metavar="FOLDER", help="real maps of one category")
    parser.add_argument("--device", type=devices.choose, default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--tiny", action="store_true", help="only to see that everything runs")
    options = parser.parse_args()
    if unknown := set(options.names) - set(BENCHMARKS):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {list(BENCHMARKS)}")

    torch.set_flush_denormal(True)  # they slow Pillow's blur three times, which would flatter ours
    rows = []
    for name in options.names or (BENCHMARKS if options.all else default):
        threads = 1 if BENCHMARKS[name].one_core else options.threads
        cv2.setNumThreads(threads)
        torch.set_num_threads(threads)
        rows += BENCHMARKS[name].measure(options)

    table = Table("name", "measured on", title=devices.describe(options.device))
    for title in ("ours, ms", "plain, ms", "ratio", "of limit"):
        table.add_column(title, justify="right")
    for row in rows:
        of_limit = "" if row.of_limit is None else f"{row.of_limit:.0%}"
        figures = (f"{row.ours:,.3f}", f"{row.plain:,.1f}", f"{row.ratio:,.1f} x", of_limit)
        table.add_row(row.name, row.measured_on, *figures)
    Console().print(table)
    if options.json:
        measured = {
            "device": devices.describe(options.device),
            "threads": options.threads,
            "versions": versions(),
            "rows": [asdict(row) for row in rows],
        }
        options.json.write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
