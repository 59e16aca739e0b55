"""Extend a finished run by a day's photographs: classes keep their ids, new kinds are appended.

The network is not trained again: its class tokens stay as they are, and a new class gets a
prototype beside the old ones. So what the run keeps of its regions is enough, and old classes
cannot drift. The result is a run of its own; the run that it extends is only read.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from anomalyncd import detectors
from anomalyncd.config import MAX_MEGAPIXELS, UNKNOWN_SHARE, FilesDetectorConfig
from anomalyncd.detectors.reference import LearnedReference
from anomalyncd.discovery.descriptors import describe
from anomalyncd.extension import day, groups, parent, photographs, prototypes, result
from anomalyncd.extension.day import Accepted
from anomalyncd.extension.maps import InParts
from anomalyncd.extension.parent import Parent
from anomalyncd.extension.photographs import NewPhotographs
from anomalyncd.extension.place import beside, require_ours
from anomalyncd.prediction.classifier import Classifier, Examined
from anomalyncd.run import RunResult
from anomalyncd.runtime import console
from anomalyncd.storage.cache import Cache, digest
from anomalyncd.storage.run_folder import RunFolder
from anomalyncd.types import OUT_OF_SCOPE, UNKNOWN, Regions

log = logging.getLogger(__name__)

_WORK = ".work"  # maps and regions of the new photographs, until the extension is finished
_ROLE = "extension"  # in inputs.json: what the folder is computed from


def extend(
    run: str | Path,
    photos: str | Path | Sequence[str | Path],
    *,
    output: str | Path | None = None,
    maps: str | Path | None = None,
    weights: str | Path | None = None,
    device: str = "auto",
    forward_batch: int = 64,
    max_megapixels: int = MAX_MEGAPIXELS,
    unknown_share: float = UNKNOWN_SHARE,
    quiet: bool = False,
) -> RunResult:
    """Add new photographs to what a finished run knows.

    Regions like a learned class get its id. Regions unlike all of them are gathered, with those of
    earlier extensions, into new classes, as soon as enough of them hold together.

    Args:
        run: the folder of a finished run, or of an extension of one.
        photos: folders of photographs, and single ones.
        output: the new run's folder; None: beside `run`, named by the content of all inputs.
        maps: a folder with their anomaly maps, if the run did not keep its detector.
        weights: the backbone's weights file, if it has been moved.
        device: as in `Config.device`.
        forward_batch: regions per forward pass.
        max_megapixels: of the largest image.
        unknown_share: of known regions that may be called unknown by mistake; more finds more.
        quiet: print nothing but warnings.

    Returns:
        The new run. The same call returns a finished extension, and resumes a killed one.

    Raises:
        InputError: the run or a photograph cannot be used, all photographs are known already, or
            `output` holds something else.

    Example:
        >>> result = anomalyncd.extend("outputs/…/seed-1", "tuesday")  # doctest: +SKIP
        >>> result.metrics["extension"]["summary"]  # doctest: +SKIP
        ['Extension of seed-1: 31 new images.', 'No new class.', …]
    """
    root = Path(run)
    given = [photos] if isinstance(photos, str | Path) else list(photos)
    found = photographs.find(given, parent.photographs(root).values(), max_megapixels)
    given_maps = None if maps is None else FilesDetectorConfig(path=str(maps))
    of_maps = given_maps and detectors.inputs(given_maps, "images", found.dataset)
    made_of = digest(parent.identity(root), sorted(found.digests), unknown_share, of_maps)
    folder = RunFolder(Path(output) if output else beside(root, made_of))
    with folder.held():
        require_ours(folder, _ROLE, made_of, "the extension of this run by these photographs")
        if folder.finished:
            _clean(folder)
            if not quiet:
                console.say(f"Finished before: {folder.root}")
            return RunResult(folder.root, folder.metrics, was_finished=True)
        classifier = Classifier(
            root,
            weights=weights,
            device=device,
            forward_batch=forward_batch,
            max_megapixels=max_megapixels,
            unknown_share=unknown_share,
        )
        before = parent.read(root, classifier.metadata, classifier.network.vit.width)
        folder.create()
        folder.note_inputs({_ROLE: {"made_of": made_of}})
        with console.logging_to(folder.path("log.txt"), quiet=quiet):
            for warning in found.dataset.warnings:
                log.warning(warning)
            metrics = _compute(before, classifier, found, folder, maps, made_of)
        _clean(folder)
    return RunResult(folder.root, metrics, was_finished=False)


def _compute(
    before: Parent,
    classifier: Classifier,
    found: NewPhotographs,
    folder: RunFolder,
    maps: str | Path | None,
    made_of: str,
) -> dict[str, object]:
    folder.note_progress(stage="maps")
    cache = Cache(folder.path(_WORK))
    detector = _detector(classifier, cache, maps)
    examined = classifier.examine(found.dataset, detector, "images", cache, settings={})
    folder.note_progress(stage="classes")
    region_scores, image_scores = examined.region_scores, examined.image_scores
    regions, kept = examined.cropped.regions, len(before.days)
    unknown = (region_scores > 1) & (regions.areas > 0)
    classes = _said(examined, classifier)
    classes[unknown] = UNKNOWN
    classes[image_scores[regions.image_index] > 1] = OUT_OF_SCOPE
    everything = day.Regions(
        np.concatenate([before.known.tokens, examined.classified.tokens]),
        np.concatenate([before.known.classes, classes]),
        np.concatenate([before.days, np.full(len(regions), before.number + 1)]),
    )
    of_unknown = np.flatnonzero(everything.classes == UNKNOWN)
    today = of_unknown[of_unknown >= kept] - kept
    descriptors = _descriptors(before, classifier, regions, today, cache)
    gathered = _gather(before, found, examined, everything, of_unknown, descriptors, cache)
    network, metadata = classifier.network, classifier.metadata
    old = network.heads.prototypes[:, network.n_base :]
    accepted = day.accept(
        gathered,
        everything,
        old,
        metadata.head,
        before.classes.names,
        metadata.train.student_temperature,
    )
    _append(classifier, accepted)
    new = None if accepted.prototypes is None else accepted.prototypes[metadata.head]
    claimed = prototypes.nearest(old[metadata.head], new, everything.tokens)
    after = day.moves(accepted, everything, claimed, len(before.classes.classes))
    done = result.Extended(
        before=before,
        found=found,
        examined=examined,
        everything=replace(everything, classes=after),
        accepted=accepted,
        of_unknown=of_unknown,
        descriptors=descriptors,
        region_scores=region_scores,
        image_scores=image_scores,
        made_of=made_of,
    )
    return result.write(folder, classifier, done)


def _said(examined: Examined, classifier: Classifier) -> NDArray[np.int64]:
    """(n,) what the network says of each new region, whatever it is."""
    return examined.classified.probabilities[classifier.metadata.head].argmax(1).astype(np.int64)


def _detector(classifier: Classifier, cache: Cache, maps: str | Path | None) -> detectors.Detector:
    if maps is not None:
        config = FilesDetectorConfig(path=str(maps))
        return detectors.create(
            config, "images", classifier.device, cache.root, classifier.max_megapixels
        )
    own = classifier.own_detector(cache)
    # Others compare the photographs with each other.
    return InParts(own, cache) if isinstance(own, LearnedReference) else own


def _descriptors(
    before: Parent,
    classifier: Classifier,
    regions: Regions,
    today: NDArray[np.int64],
    cache: Cache,
) -> NDArray[np.float32]:
    """(m, turns, kinds, width) of all unknown regions: those that waited, then today's."""
    waited = before.waiting.descriptors
    if not len(today):
        return waited
    few = replace(
        regions,
        images=regions.images[today],
        masks=regions.masks[today],
        image_index=regions.image_index[today],
        boxes=regions.boxes[today],
        areas=regions.areas[today],
        scores=regions.scores[today],
        name=f"{regions.name}-{digest(today.tolist())}",
    )
    network = classifier.network
    described = describe(
        network,
        network.vit,
        few,
        cache,
        frozen_hash=classifier.metadata.frozen_hash,
        forward_batch=network.forward_batch,
    ).descriptors
    # As they are kept, so that it does not matter on which day they are looked at.
    described = described.astype(np.float16).astype(np.float32)
    return np.concatenate([waited, described]) if len(waited) else described


def _gather(
    before: Parent,
    found: NewPhotographs,
    examined: Examined,
    everything: day.Regions,
    of_unknown: NDArray[np.int64],
    descriptors: NDArray[np.float32],
    cache: Cache,
) -> list[groups.Group]:
    """Groups of unknown regions, by their rows among all regions."""
    ids = [row["id"] for row in before.regions]
    places = {name: number for number, name in enumerate(dict.fromkeys(ids))}
    images = np.concatenate(
        [
            np.array([places[name] for name in ids], int),
            len(places) + examined.cropped.regions.image_index,
        ]
    )
    unknown = groups.Unknown(
        descriptors,
        everything.tokens[of_unknown],
        images[of_unknown],
        everything.days[of_unknown],
    )
    learned = everything.classes >= 0
    gathered = groups.gather(
        unknown,
        everything.tokens[learned],
        everything.days[learned],
        seed=int(before.settings.values["seed"]),
        cache=cache,
    )
    return [replace(group, rows=of_unknown[group.rows]) for group in gathered]


def _append(classifier: Classifier, accepted: Accepted) -> None:
    """Put the new prototypes behind the old ones."""
    if accepted.prototypes is not None:
        heads = classifier.network.heads
        new = accepted.prototypes.to(heads.prototypes.device)
        heads.prototypes = nn.Parameter(torch.cat([heads.prototypes.detach(), new], dim=1))


def _clean(folder: RunFolder) -> None:
    """Remove the maps and regions that this extension made for itself."""
    with suppress(FileNotFoundError):
        shutil.rmtree(folder.path(_WORK))
