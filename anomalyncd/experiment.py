"""The paper's overview figure as code: from images and anomaly maps to classes of defects."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch

from anomalyncd import detectors
from anomalyncd.config import Config
from anomalyncd.detectors import map_store
from anomalyncd.discovery.descriptors import describe
from anomalyncd.discovery.discover import Discovery, discover
from anomalyncd.errors import InputError
from anomalyncd.evaluation.map_quality import evaluate_binarization, evaluate_maps
from anomalyncd.evaluation.scoring import evaluate
from anomalyncd.inference import appearance
from anomalyncd.inference.classify import assign, classify
from anomalyncd.inputs import Inputs, find_inputs, open_inputs, require_masks_fit
from anomalyncd.models import backbone, checkpoint, model
from anomalyncd.models.mask_guided_vit import MaskGuidedViT
from anomalyncd.regions import cropping
from anomalyncd.results import known_regions, run_results
from anomalyncd.runtime import console, devices, distributed, tracking
from anomalyncd.storage.atomic import copy
from anomalyncd.storage.cache import digest
from anomalyncd.storage.run_folder import STATE, RunFolder
from anomalyncd.training import train
from anomalyncd.training.progress import TrainingProgress
from anomalyncd.training.state import TrainingState
from anomalyncd.training.training_set import TrainingSet

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """The network, the training set and what they were made from."""

    maps: map_store.StoredMaps
    cropped: cropping.Cropped
    data: TrainingSet
    base_classes: tuple[str, ...]
    n_novel: int
    discovery: Discovery | None  # None: no consensus
    network: model.Model
    source: backbone.Source  # of the frozen weights
    frozen_hash: str


def compute(
    config: Config,
    given: Inputs,
    folder: RunFolder,
    tracker: tracking.Tracker,
    world: distributed.World,
) -> dict[str, Any]:
    """Compute a run and write its results.

    Args:
        config: all settings.
        given: the opened inputs.
        folder: the run's folder, locked by this process.
        tracker: for losses and scores.
        world: the processes that train together.

    Returns:
        The content of metrics.json.

    Raises:
        InputError: the data cannot be trained on, or a file cannot be written.
    """
    log.info("Run folder: %s", folder.root)
    dataset = given.dataset
    seconds = {"inputs": given.seconds}

    prepared = _prepare(config, given, lambda stage: _timed(folder, seconds, stage))
    network, cropped = prepared.network, prepared.cropped
    warnings, notes = run_results.caveats(
        config, prepared.source, labelled=dataset.labels is not None
    )
    warnings += dataset.warnings + (given.base.warnings if given.base else ())
    warnings += run_results.map_caveats(cropped.counts)
    if prepared.discovery and prepared.discovery.is_near_chance:
        warnings += (prepared.discovery.sentence,)
    for warning in warnings:
        log.warning(warning)
    log.info(
        "%d regions in %d images; %d images have a main element; %d base regions",
        len(cropped.regions),
        len(dataset.samples),
        (cropped.counts > 0).sum(),
        prepared.data.n_base,
    )

    with _timed(folder, seconds, "evaluate maps"):
        detection = evaluate_maps(dataset, prepared.maps, given.cache)
        detection |= evaluate_binarization(dataset, cropped.counts)

    with _timed(folder, seconds, "train"):
        state = _state(folder, prepared)
        with distributed.together(world, given.device):
            history = _train(config, prepared, state, tracker, folder, world)
        head = train.best_head(history)

    with _timed(folder, seconds, "classify"):
        classified = classify(
            network, cropped.regions, temperature=config.train.student_temperature
        )
        chosen = classified.probabilities[head]
        predictions = assign(chosen, cropped.regions, config.fusion)

    with _timed(folder, seconds, "evaluate"):
        region_labels = config.evaluation.region_labels
        evaluation = evaluate(
            dataset, cropped.regions, predictions, prepared.n_novel, region_labels
        )

    done = run_results.Computed(
        config=config,
        dataset=dataset,
        base_classes=prepared.base_classes,
        n_base=prepared.data.n_base,
        n_novel=prepared.n_novel,
        discovery=prepared.discovery,
        source=prepared.source,
        frozen_hash=prepared.frozen_hash,
        maps=prepared.maps,
        cropped=cropped,
        detection=detection,
        losses=dict(zip(train.TERMS, train.last_means(history), strict=False)),
        head=head,
        predictions=predictions,
        evaluation=evaluation,
        warnings=warnings,
        notes=notes,
        resumed_after=state.resumed_after,
        device=given.device,
        precision=network.vit.precision,
    )
    metrics = run_results.metrics_of(done)
    tracker.summarise(_flat(metrics["scores"]))
    with _timed(folder, seconds, "report"):
        checkpoint.save_model(
            folder.path("model.safetensors"), network, run_results.metadata_of(done)
        )
        if prepared.maps.learned is not None:
            copy(prepared.maps.learned, folder.path(map_store.LEARNED))
        images = [sample.image for sample in dataset.samples]
        known_regions.write(
            folder.root,
            classified.tokens,
            appearance.in_every_turn(network, cropped.regions),
            *appearance.of_run(network, cropped.regions, images),
        )
        run_results.write(folder, done, {**metrics, "seconds": seconds})
    seconds["total"] = sum(seconds.values())
    metrics["seconds"] = {stage: round(s, 3) for stage, s in seconds.items()}
    folder.finish(metrics)
    state.discard()
    return folder.metrics


def assist(config: Config, folder: RunFolder, world: distributed.World) -> None:
    """Share the training of the first process, which has put maps and regions into the cache."""
    with distributed.together(world, devices.choose(config.device)):
        given = open_inputs(config, find_inputs(config))
        prepared = _prepare(config, given, lambda _: nullcontext())
        train.train(
            prepared.network,
            prepared.data,
            config.train,
            seed=config.seed,
            state=_state(folder, prepared),
            on_epoch=lambda *_: None,
            world=world,
        )


def _prepare(
    config: Config, given: Inputs, timed: Callable[[str], AbstractContextManager[None]]
) -> Prepared:
    cache, dataset, n_novel = given.cache, given.dataset, given.n_novel
    # A consensus says what to learn, so that known defects are not needed to learn what kinds are.
    base = None if config.discovery.is_consensus else given.base
    counted = " (counted from the label folders)" if config.novel_classes == "auto" else ""
    number = f"{n_novel} classes to find{counted}" if n_novel else "number of classes estimated"
    log.info("%d images, %s", len(dataset.samples), number)

    advice = detectors.memory_advice(config.detector)
    with timed("maps"), devices.memory_explained(advice):
        anomaly_maps = map_store.collect(
            given.detector, dataset, config.category, cache, settings=asdict(config.detector)
        )

    with timed("backbone"):
        pretrained = backbone.build(config.backbone)
        frozen_hash = checkpoint.frozen_hash(pretrained)
        base_classes = base.labels.classes if base and base.labels else ()
        vit = model.masked(pretrained, config.attention).to(given.device)

    with timed("regions"):
        size = config.backbone.image_size
        cropped = cropping.crop_novel(
            dataset.samples, anomaly_maps, config.mebin, config.regions, size, cache
        )
        data = TrainingSet(cropped.regions)
        if base and base.labels:
            base_regions = cropping.crop_base(base.samples, config.regions, size, cache)
            targets = base.labels.targets[base_regions.image_index]
            data = TrainingSet(cropped.regions, base_regions, targets)
        require_masks_fit(dataset, cropped.regions)
        _require_enough_regions(cropped, n_novel or 1)

    discovery = None
    if config.discovery.is_consensus:
        with timed("consensus"):
            discovery = _discover(config, given, pretrained, vit, cropped, frozen_hash)
        n_novel, data = discovery.k, replace(data, votes=discovery.votes)
    assert n_novel is not None  # without a consensus it is set, or counted
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = model.build(
            pretrained,
            config.attention,
            config.train,
            n_base=len(base_classes),
            n_novel=n_novel,
        ).to(given.device)
    network.forward_batch = config.forward_batch
    return Prepared(
        anomaly_maps,
        cropped,
        data,
        base_classes,
        n_novel,
        discovery,
        network,
        pretrained.source,
        frozen_hash,
    )


def _discover(
    config: Config,
    given: Inputs,
    pretrained: backbone.Backbone,
    vit: MaskGuidedViT,
    cropped: cropping.Cropped,
    frozen_hash: str,
) -> Discovery:
    """The consensus of several clusterings, which the network learns instead of its own guesses."""
    with console.steps("Describing regions") as step:
        described = describe(
            pretrained,
            vit,
            cropped.regions,
            given.cache,
            frozen_hash=frozen_hash,
            forward_batch=config.forward_batch,
            on_views=step,
        )
    with console.steps("Clusterings of the consensus") as step:
        found = discover(
            described.descriptors,
            cropped.regions,
            k=given.n_novel,
            members=config.discovery.members,
            seed=config.seed,
            cache=given.cache,
            made_of=described.made_of,
            on_member=step,
        )
    log.info(found.sentence)
    return found


def _train(
    config: Config,
    prepared: Prepared,
    state: TrainingState,
    tracker: tracking.Tracker,
    folder: RunFolder,
    world: distributed.World,
) -> list[list[float]]:
    with TrainingProgress(folder, quiet=config.quiet) as show:

        def on_epoch(epoch: int, means: dict[str, float]) -> None:
            if means:
                tracker.log(means, epoch)
            show("epoch", epoch + 1, config.train.epochs, state.resumed_after, _brief(means))

        return train.train(
            prepared.network,
            prepared.data,
            config.train,
            seed=config.seed,
            state=state,
            on_epoch=on_epoch,
            on_views=partial(show, "view"),
            world=world,
        )


def _state(folder: RunFolder, prepared: Prepared) -> TrainingState:
    fingerprint = digest(prepared.data.fingerprint, prepared.frozen_hash)
    return TrainingState(folder.path(STATE), fingerprint)


def _brief(means: dict[str, float]) -> str:
    if not means:
        return "no batch of base and novel regions"
    return ", ".join(f"{name} {value:.3f}" for name, value in means.items())


def _flat(scores: dict[str, dict[str, float] | None]) -> dict[str, float]:
    return {f"{level}/{k}": v for level, s in scores.items() if s for k, v in s.items()}


def _require_enough_regions(cropped: cropping.Cropped, n_novel: int) -> None:
    n_images = len(cropped.counts)
    if not cropped.counts.any():
        lo, hi = cropped.search_range
        raise InputError(
            f"no defect found: no main element in any of {n_images} anomaly maps "
            f"(search range {lo:g} to {hi:g}); check that maps are brighter at defects, or set "
            "mebin.search_range=[lo,hi], a smaller mebin.erosion or, with mebin.method=fixed, a "
            "lower mebin.threshold, or, with mebin.method=adaptive, a lower mebin.gate"
        )
    if len(cropped.regions) < n_novel:
        raise InputError(
            f"novel_classes={n_novel}, but only {len(cropped.regions)} regions were found in "
            f"{n_images} images; lower novel_classes or add more images"
        )


@contextmanager
def _timed(folder: RunFolder, seconds: dict[str, float], stage: str) -> Iterator[None]:
    folder.note_progress(stage=stage)
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start
    log.info("%s: %.1f s", stage, seconds[stage])
