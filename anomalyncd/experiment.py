"""The paper's overview figure as code: from images and anomaly maps to classes of defects."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import OmegaConf

from anomalyncd import detectors
from anomalyncd.config import (
    AnomalibDetectorConfig,
    BackboneConfig,
    Config,
    DetectorConfig,
    GroundTruthConfig,
    MuscDetectorConfig,
    SimulatedDetectorConfig,
)
from anomalyncd.data import datasets
from anomalyncd.data.images import read_mask
from anomalyncd.detectors import map_store
from anomalyncd.errors import InputError
from anomalyncd.evaluation import metrics
from anomalyncd.evaluation.map_quality import judge_binarization, judge_maps
from anomalyncd.inference.classify import Assignment, assign, classify
from anomalyncd.models import backbone, checkpoint, model
from anomalyncd.regions import cropping
from anomalyncd.results import csv_files, report
from anomalyncd.runtime import console, devices, distributed, tracking
from anomalyncd.runtime.versions import versions
from anomalyncd.storage import identity
from anomalyncd.storage.cache import Cache, digest
from anomalyncd.storage.identity import Digests
from anomalyncd.storage.run_folder import RunFolder
from anomalyncd.storage.run_record import MAX_REASON
from anomalyncd.training import train, training_set
from anomalyncd.training.cached_features import Bank
from anomalyncd.training.progress import TrainingProgress
from anomalyncd.types import UNLABELLED, AnomalyMaps, Dataset, Fit, Labels, Regions, Scores

log = logging.getLogger(__name__)

_STATE = "training.safetensors"  # a finished epoch, while the run is not finished

UNTRAINED = (
    "The backbone is untrained (random weights): this run shows that everything works, "
    "but its classes and scores mean little."
)
SIMULATED = (
    "The anomaly maps are simulated from the truth masks; no detector has looked at the images."
)


@dataclass(frozen=True)
class Outcome:
    folder: Path
    metrics: dict[str, Any]  # empty in a process that only helped
    was_finished: bool  # nothing was computed: the run had been there


@dataclass(frozen=True)
class Verdict:
    """Where labels have met predictions."""

    scores: dict[str, Scores | None]  # at image and region level; None without labels
    normal_recall: dict[str, float | None]  # at both levels; None without a normal class
    matching: NDArray[np.int64]  # (K,), true class of each found one, UNLABELLED = none
    class_names: tuple[str, ...]  # (K,)
    region_targets: NDArray[np.int64] | None  # (n_regions,), true classes


def run(config: Config, *, in_a_sweep: bool = False) -> Outcome:
    """Compute one run, or go on with it, or recognise that it is finished.

    Under torchrun all processes call this. The first does everything that is written; the others
    share the training with it.

    Args:
        config: all settings.
        in_a_sweep: keep a record also of what could not even begin, such as a wrong path.

    Raises:
        InputError: something that the user gave cannot be used.
    """
    folder = RunFolder.of(config)
    world = distributed.started()
    if config.fit.trunk == "bank" and world.size > 1:
        raise InputError(
            f"fit.trunk=bank works in one process, not in {world.size}: its trunk runs once; "
            "start it without torchrun, or use fit.trunk=exact"
        )
    if not world.is_first:
        known = folder.inputs  # before `finished`: the first process may set the folder aside now
        if config.rerun or not folder.finished or known != _inputs(config).digests:
            with devices.memory_explained(_less_memory_for_views(config)):
                _help(config, folder, world)
        return Outcome(folder.root, {}, was_finished=False)
    given = _inputs_or_record(config, folder, in_a_sweep)  # a mistyped path leaves nothing behind
    with folder.held():
        changed = ""
        if folder.finished and not config.rerun:
            changed = _change(folder.inputs, given.digests)
            if not changed:
                folder.path(_STATE).unlink(missing_ok=True)  # killed just before that
                if not config.quiet:
                    console.say(f"Finished before: {folder.root} (rerun=true computes it again)")
                return Outcome(folder.root, folder.metrics, was_finished=True)
        return _run(config, given, folder, world, changed)


def _inputs_or_record(config: Config, folder: RunFolder, in_a_sweep: bool) -> Inputs:
    """What the user has given; if it cannot be used, a sweep or a fault leaves a record of it."""
    try:
        with console.logging_to(None, quiet=config.quiet):
            return _inputs(config)
    except Exception as error:
        is_noted = in_a_sweep or not isinstance(error, InputError)
        if is_noted and (config.rerun or not folder.finished):
            with suppress(InputError), folder.held():  # the first error is to be told
                _begin(config, folder)
                folder.note_progress(failed=_reason(error))
        raise


def _run(
    config: Config, given: Inputs, folder: RunFolder, world: distributed.World, changed: str
) -> Outcome:
    """Compute a run whose folder is held; `changed` says how a finished one's inputs differ."""
    aside = _begin(config, folder)
    folder.note_inputs(given.digests)
    with console.logging_to(folder.path("log.txt"), quiet=config.quiet):
        if changed:
            log.warning("%s: it is computed again; what it was is in %s", changed, aside)
        name = "/".join(folder.root.parts[-5:])
        tracker = tracking.create(config.tracker, folder.root, name, asdict(config))
        try:
            with devices.memory_explained(_less_memory_for_views(config)):
                metrics = _compute(config, given, folder, tracker, world)
            return Outcome(folder.root, metrics, was_finished=False)
        except BaseException as error:
            log.debug("stopped", exc_info=error)  # the log has what the terminal is spared
            if isinstance(error, Exception):
                with suppress(InputError):  # on a full disk the first error is to be told
                    folder.note_progress(failed=_reason(error))
            raise
        finally:
            tracker.finish()


@dataclass(frozen=True)
class Prepared:
    """All that training takes, and what it was made from."""

    dataset: Dataset
    n_novel: int
    maps: map_store.StoredMaps
    base_classes: tuple[str, ...]
    source: backbone.Source  # of the frozen weights
    network: model.Model
    frozen: str  # hash of the weights that its frozen blocks have
    cut: cropping.Cut
    data: training_set.TrainingSet


def _begin(config: Config, folder: RunFolder) -> Path | None:
    """Make the run's folder, or resume in it; where a finished one has been set aside."""
    aside = None
    if config.rerun or folder.finished:
        Bank.remove(train.bank_beside(folder.path(_STATE)))  # large, and of no use any more
        aside = folder.set_aside()
    folder.create()
    folder.write_text("config.yaml", OmegaConf.to_yaml(OmegaConf.structured(config)))
    return aside


def _change(before: Digests | None, now: Digests) -> str:
    """What has changed since a run has finished; empty if nothing has."""
    if before is None:
        return "There is no record of what this finished run was computed from"
    found = identity.difference(before, now)
    return f"Since this run finished: {found}" if found else ""


@dataclass(frozen=True)
class Inputs:
    """What the user has given, found and opened."""

    cache: Cache
    device: torch.device
    dataset: Dataset
    base: Dataset | None
    n_novel: int
    detector: detectors.Detector
    digests: Digests  # of all this
    seconds: float  # that it took; a drawn product is drawn then


def _inputs(config: Config) -> Inputs:
    start = time.perf_counter()
    cache = Cache(Path(config.cache_root))
    device = devices.choose(config.device)
    most = config.max_megapixels
    dataset = datasets.load(config.dataset, config.category, cache, max_megapixels=most)
    base = datasets.load_base(config.base, cache, most)
    n_novel = _novel_classes(config, dataset)
    detector = detectors.create(config.detector, config.category, device, cache.root, most)
    _require_masks(config, dataset)
    digests = _digests(dataset, base, detector, backbone.weights_file(config.backbone))
    seconds = time.perf_counter() - start
    return Inputs(cache, device, dataset, base, n_novel, detector, digests, seconds)


def _digests(
    dataset: Dataset, base: Dataset | None, detector: detectors.Detector, weights: Path | None
) -> Digests:
    files = identity.files_of(dataset)
    if base:
        files |= identity.files_of(base, "base ")
    if weights:
        files["weights file"] = {weights.name: weights}
    of_detector = detectors.inputs(detector, replace(dataset, labels=None))
    return identity.digests(files) | of_detector


def _prepare(
    config: Config, given: Inputs, timed: Callable[[str], AbstractContextManager[None]]
) -> Prepared:
    cache, dataset, base, n_novel = given.cache, given.dataset, given.base, given.n_novel
    counted = ", as many as label folders" if config.novel_classes == "auto" else ""
    log.info("%d images, %d classes to find%s", len(dataset.samples), n_novel, counted)

    with timed("maps"), devices.memory_explained(_less_memory_for_maps(config.detector)):
        anomaly_maps = map_store.collect(
            given.detector, dataset, config.category, cache, settings=asdict(config.detector)
        )

    with timed("backbone"):
        stock = backbone.build(config.backbone)
        base_classes = base.labels.classes if base and base.labels else ()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            network = model.build(
                stock, config.attention, config.fit, n_base=len(base_classes), n_novel=n_novel
            ).to(given.device)
        network.forward_batch = config.forward_batch

    with timed("regions"):
        side = config.backbone.side
        cut = cropping.cut_novel(
            dataset.samples, anomaly_maps, config.mebin, config.regions, side, cache
        )
        data = training_set.TrainingSet(cut.regions)
        if base and base.labels:
            base_regions = cropping.cut_base(base.samples, config.regions, side, cache)
            targets = base.labels.targets[base_regions.image_index]
            data = training_set.TrainingSet(cut.regions, base_regions, targets)
        _require_usable_masks(dataset, cut.regions)
        _require_enough(cut, n_novel)
    frozen = checkpoint.frozen_hash(stock)
    return Prepared(
        dataset, n_novel, anomaly_maps, base_classes, stock.source, network, frozen, cut, data
    )


def _state(folder: RunFolder, ready: Prepared) -> checkpoint.TrainingState:
    fingerprint = digest(ready.data.fingerprint, ready.frozen)
    return checkpoint.TrainingState(folder.path(_STATE), fingerprint)


def _help(config: Config, folder: RunFolder, world: distributed.World) -> None:
    """Take part in the training of the first process; what it has prepared is in the cache."""
    device = devices.choose(config.device)
    with distributed.together(world, device):
        ready = _prepare(config, _inputs(config), lambda _: nullcontext())
        train.fit(
            ready.network,
            ready.data,
            config.fit,
            seed=config.seed,
            state=_state(folder, ready),
            on_epoch=lambda *_: None,
            world=world,
        )


def _compute(
    config: Config,
    given: Inputs,
    folder: RunFolder,
    tracker: tracking.Tracker,
    world: distributed.World,
) -> dict[str, Any]:
    log.info("Run folder: %s", folder.root)
    seconds = {"catalog": given.seconds}
    ready = _prepare(config, given, lambda stage: _timed(folder, seconds, stage))
    dataset, n_novel, cut, data = ready.dataset, ready.n_novel, ready.cut, ready.data
    anomaly_maps, network = ready.maps, ready.network
    warnings, notes = _caveats(config, ready.source, labelled=dataset.labels is not None)
    for inputs in (dataset, given.base):
        warnings += inputs.warnings if inputs else ()
    for warning in warnings:
        log.warning(warning)
    log.info(
        "%d regions in %d images, %d of them with a main element; %d base regions",
        len(cut.regions),
        len(dataset.samples),
        (cut.counts > 0).sum(),
        data.n_base,
    )

    with _timed(folder, seconds, "judge maps"):
        detection = judge_maps(dataset, anomaly_maps, Cache(Path(config.cache_root)))
        detection |= judge_binarization(dataset, cut.counts)

    with _timed(folder, seconds, "fit"):
        state = _state(folder, ready)
        with distributed.together(world, next(network.parameters()).device):
            history = _fit(network, data, config, state, tracker, folder, world)
        head = train.best_head(history)

    with _timed(folder, seconds, "classify"):
        temperature = config.fit.student_temperature
        probabilities = classify(network, cut.regions, temperature=temperature)[head]
        found = assign(probabilities, cut.regions, config.fusion)

    with _timed(folder, seconds, "score"):
        verdict = _judge(dataset, cut.regions, found, n_novel, config.evaluation.region_labels)

    figures: dict[str, Any] = {
        "dataset": config.dataset.kind,
        "category": config.category,
        "detector": config.detector.label,
        "scores": {level: s and asdict(s) for level, s in verdict.scores.items()},
        "normal_recall": verdict.normal_recall,
        "region_labels": config.evaluation.region_labels,
        "detection": detection,
        "counts": {
            "images": len(dataset.samples),
            "images_without_defect_found": int((cut.counts == 0).sum()),
            "regions": len(cut.regions),
            "base_regions": data.n_base,
            "novel_classes": n_novel,
            "base_classes": len(ready.base_classes),
        },
        "mebin": {"search_range": list(cut.search_range), "raw_range": anomaly_maps.raw_range},
        "head": head,
        "losses": dict(zip(train.TERMS, train.last_means(history), strict=False)),
        "seed": config.seed,
        "resumed_after_epochs": state.resumed_after,
        "device": devices.describe(next(network.parameters()).device),
        "threads": torch.get_num_threads(),  # their number changes the last digits
        "warnings": warnings,
        "versions": versions(),
    }
    tracker.summarise(
        {
            f"{level}/{k}": v
            for level, s in verdict.scores.items()
            if s
            for k, v in asdict(s).items()
        }
    )
    if state.resumed_after:
        notes.append(f"Times are of the last call, which went on after epoch {state.resumed_after}")
    with _timed(folder, seconds, "report"):
        recipe = checkpoint.Recipe(
            backbone=_findable(config.backbone),
            backbone_source=ready.source,
            attention=config.attention,
            mebin=replace(config.mebin, search_range=list(cut.search_range)),
            regions=config.regions,
            fusion=config.fusion,
            fit=config.fit,
            raw_range=anomaly_maps.raw_range,
            head=head,
            base_classes=ready.base_classes,
            class_names=verdict.class_names,
            frozen_hash=ready.frozen,
        )
        checkpoint.save_model(folder.path("model.safetensors"), network, recipe)
        metrics_so_far = {**figures, "seconds": seconds}
        _show(config, folder, dataset, anomaly_maps, cut, found, verdict, metrics_so_far, notes)
    seconds["total"] = sum(seconds.values())
    folder.finish({**figures, "seconds": {stage: round(s, 3) for stage, s in seconds.items()}})
    state.discard()
    return folder.metrics


def _show(
    config: Config,
    folder: RunFolder,
    dataset: Dataset,
    anomaly_maps: AnomalyMaps,
    cut: cropping.Cut,
    found: Assignment,
    verdict: Verdict,
    figures: dict[str, Any],
    notes: list[str],
) -> None:
    """Write what a person or another program reads: the tables and the report."""
    names = verdict.class_names
    csv_files.write_predictions(
        folder.path("predictions.csv"), dataset.samples, cut, found, names, dataset.labels
    )
    csv_files.write_regions(
        folder.path("regions.csv"),
        dataset.samples,
        cut.regions,
        found,
        names,
        dataset.labels,
        verdict.region_targets,
    )
    findings = report.Findings(
        title=f"{config.dataset.kind} / {config.category}",
        subtitle=f"maps: {config.detector.label} · seed {config.seed}",
        warnings=tuple(figures["warnings"]),
        notes=tuple(notes),
        metrics=figures,
        config_yaml=folder.path("config.yaml").read_text(encoding="utf-8"),
        samples=dataset.samples,
        labels=dataset.labels,
        regions=cut.regions,
        region_targets=verdict.region_targets,
        maps=anomaly_maps,
        region_class=found.region_class,
        region_confidence=found.region_confidence,
        image_class=found.image_class,
        image_confidence=found.image_confidence,
        class_names=names,
        matching=verdict.matching,
        fit=cast(Fit, config.regions.fit),
    )
    report.write_report(folder.path("report.html"), findings)


def make_maps(config: Config) -> tuple[Path, dict[str, float | None]]:
    """Make a category's anomaly maps, or find them made, and train nothing on them.

    Returns:
        The folder that holds them in the release's layout, and how good they are.
    """
    cache = Cache(Path(config.cache_root))
    most = config.max_megapixels
    dataset = datasets.load(config.dataset, config.category, cache, max_megapixels=most)
    device = devices.choose(config.device)
    detector = detectors.create(config.detector, config.category, device, cache.root, most)
    _require_masks(config, dataset)
    explained = devices.memory_explained(_less_memory_for_maps(config.detector))
    with console.logging_to(None, quiet=config.quiet), explained:
        for warning in dataset.warnings:
            log.warning(warning)
        anomaly_maps = map_store.collect(
            detector, dataset, config.category, cache, settings=asdict(config.detector)
        )
    return anomaly_maps.folder, judge_maps(dataset, anomaly_maps, cache)


def _fit(
    network: model.Model,
    data: training_set.TrainingSet,
    config: Config,
    state: checkpoint.TrainingState,
    tracker: tracking.Tracker,
    folder: RunFolder,
    world: distributed.World,
) -> list[list[float]]:
    with TrainingProgress(folder, quiet=config.quiet) as tell:

        def on_epoch(epoch: int, figures: dict[str, float]) -> None:
            if figures:
                tracker.log(figures, epoch)
            tell("epoch", epoch + 1, config.fit.epochs, state.resumed_after, _brief(figures))

        return train.fit(
            network,
            data,
            config.fit,
            seed=config.seed,
            state=state,
            on_epoch=on_epoch,
            on_views=partial(tell, "view"),
            world=world,
        )


def _brief(figures: dict[str, float]) -> str:
    if not figures:
        return "no batch of base and novel regions"
    return ", ".join(f"{name} {value:.3f}" for name, value in figures.items())


def _novel_classes(config: Config, dataset: Dataset) -> int:
    if len(dataset.samples) < 2:
        raise InputError(
            f"{dataset.samples[0].image} is the only image: expected at least 2 to find classes "
            "among; check dataset.path and dataset.leave_out"
        )
    if config.novel_classes != "auto":
        return int(config.novel_classes)
    if dataset.labels is None:
        raise InputError(
            "novel_classes=auto needs class folders to count and there are none; "
            "say how many classes to find, the defect-free one included: novel_classes=5"
        )
    found = len(dataset.labels.classes)
    if found < 2:
        raise InputError(
            f"novel_classes=auto found {found} class folder; expected at least 2, or say how many "
            "classes to find: novel_classes=5"
        )
    return found


def _require_enough(cut: cropping.Cut, n_novel: int) -> None:
    n_images = len(cut.counts)
    if not cut.counts.any():
        lo, hi = cut.search_range
        raise InputError(
            f"no defect found: no main element in any of {n_images} anomaly maps "
            f"(search range {lo:g} to {hi:g}); check that maps are brighter at defects, or give "
            "mebin.search_range=[lo,hi], a smaller mebin.erosion or, with mebin.method=fixed, a "
            "lower mebin.threshold"
        )
    if len(cut.regions) < n_novel:
        raise InputError(
            f"novel_classes={n_novel}, but only {len(cut.regions)} regions were found in "
            f"{n_images} images; lower novel_classes or give more images"
        )


def _caveats(
    config: Config, source: backbone.Source, *, labelled: bool
) -> tuple[list[str], list[str]]:
    warnings = [UNTRAINED] if source == "random" else []
    notes = [SIMULATED] if isinstance(config.detector, SimulatedDetectorConfig) else []
    if config.novel_classes == "auto":
        notes.append("The number of classes was taken from the label folders.")
    if not labelled and config.fit.pseudo_label_correction:
        notes.append("Class 0 is meant for defect-free regions: low anomaly scores pull there.")
    return warnings, notes


def _require_masks(config: Config, dataset: Dataset) -> None:
    """detector=ground_truth would take a defect without a mask for a defect-free image."""
    labels = dataset.labels
    if not isinstance(config.detector, GroundTruthConfig) or labels is None:
        return
    for sample, target in zip(dataset.samples, labels.targets.tolist(), strict=True):
        if sample.truth_mask is None and target != labels.normal:
            raise InputError(
                f"detector=ground_truth: no truth mask for {sample.image}; add the masks of this "
                "type, leave it out with dataset.leave_out, or use another detector"
            )


def _require_usable_masks(dataset: Dataset, regions: Regions) -> None:
    """A truth mask that scoring will need must not stop the run after the training."""
    for sample, size in zip(dataset.samples, regions.image_sizes.tolist(), strict=True):
        if sample.truth_mask is not None:
            height, width = read_mask(sample.truth_mask).shape
            if [height, width] != size:
                raise InputError(
                    f"{sample.truth_mask}: a mask of {width} × {height} pixels for an image of "
                    f"{size[1]} × {size[0]}; expected the same size"
                )


def _judge(
    dataset: Dataset, regions: Regions, found: Assignment, n_novel: int, region_labels: str
) -> Verdict:
    """Compare what was found with the labels, as far as there are any."""
    labels = dataset.labels
    if labels is None:
        nothing: dict[str, Any] = {"image": None, "region": None}
        unmatched = np.full(n_novel, UNLABELLED)
        return Verdict(nothing, nothing, unmatched, _class_names(None, unmatched), None)

    def truth_of(image: int) -> NDArray[np.bool_] | None:
        mask = dataset.samples[image].truth_mask
        return None if mask is None or region_labels == "image" else read_mask(mask)

    region_targets = metrics.region_targets(labels, regions, truth_of)
    scores: dict[str, Scores | None] = {"image": None, "region": None}
    recall: dict[str, float | None] = {"image": None, "region": None}
    matching = {level: np.full(n_novel, UNLABELLED) for level in scores}
    for level, targets, predicted in (
        ("image", labels.targets, found.image_class),
        ("region", region_targets, found.region_class),
    ):
        known = targets != UNLABELLED
        if known.any():
            compared = targets[known], predicted[known]
            matched = metrics.match(*compared, max(n_novel, len(labels.classes)))
            scores[level] = metrics.score(*compared)
            recall[level] = metrics.normal_recall(*compared, matched, labels.normal)
            is_class = matched[:n_novel] < len(labels.classes)
            matching[level] = np.where(is_class, matched[:n_novel], UNLABELLED)
    names = _class_names(labels, matching["image"])
    return Verdict(scores, recall, matching["image"], names, region_targets)


def _findable(config: BackboneConfig) -> BackboneConfig:
    """The weights file by its whole path, so that prediction finds it from any folder."""
    if config.checkpoint is None:
        return config
    return replace(config, checkpoint=str(Path(config.checkpoint).resolve()))


def _class_names(labels: Labels | None, matching: NDArray[np.int64]) -> tuple[str, ...]:
    """A found class is called by the true one that it agrees with best, else by its number."""
    return tuple(
        labels.classes[true] if labels and true != UNLABELLED else f"class {number}"
        for number, true in enumerate(matching)
    )


def _less_memory_for_maps(detector: DetectorConfig) -> str:
    match detector:
        case MuscDetectorConfig():
            network = detector.backbone
            smaller = f" or detector.backbone.side={network.side}" if network else ""
            return f"lower detector.memory_gb={detector.memory_gb:g}{smaller}"
        case AnomalibDetectorConfig():
            return (
                f"lower detector.batch_size={detector.batch_size}, or set a smaller "
                "detector.image_size"
            )
    return f"it was the detector ({detector.label}); give it smaller images"


def _less_memory_for_views(config: Config) -> str:
    at_once = config.forward_batch
    other_runs = (
        f"fit.batch_size={config.fit.batch_size} and backbone.side={config.backbone.side} can be "
        "lowered too, which is another run"
    )
    if at_once == 1:
        return f"forward_batch is 1 already; {other_runs}"
    return (
        f"run the same command with forward_batch={at_once // 2}, which resumes this run; "
        f"{other_runs}"
    )


def _reason(error: Exception) -> str:
    told = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
    return told[:MAX_REASON]


@contextmanager
def _timed(folder: RunFolder, seconds: dict[str, float], stage: str) -> Iterator[None]:
    folder.note_progress(stage=stage)
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start
    log.info("%s: %.1f s", stage, seconds[stage])
