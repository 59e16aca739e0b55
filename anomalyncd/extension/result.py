"""The folder of an extension: a run like any other, with a record of what was appended and moved.

Rows of earlier days are copied as they are, except those of regions that moved. So ids, names and
confidences that somebody has used elsewhere do not change.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from anomalyncd.decisions import journal
from anomalyncd.detectors import map_store
from anomalyncd.extension import day, parent, record, waiting
from anomalyncd.extension.day import Accepted
from anomalyncd.extension.parent import Parent
from anomalyncd.extension.photographs import NewPhotographs, unused_ids
from anomalyncd.extension.record import Appended, Extension, Moved
from anomalyncd.extension.waiting import Waiting
from anomalyncd.inference import appearance
from anomalyncd.inference.classify import novel_probabilities
from anomalyncd.inference.unknown import Judged, Seen, evenly, judge
from anomalyncd.models import checkpoint
from anomalyncd.prediction.classifier import Classifier, Examined
from anomalyncd.results import csv_files, known_regions, report
from anomalyncd.runtime import devices
from anomalyncd.runtime.versions import versions
from anomalyncd.storage import class_list, run_record
from anomalyncd.storage.atomic import copy
from anomalyncd.storage.class_list import ClassList
from anomalyncd.storage.run_folder import RunFolder
from anomalyncd.types import UNKNOWN, UNLABELLED, VERDICTS, ResizeMode, Sample

Row = dict[str, str]


@dataclass(frozen=True)
class Extended:
    """All that an extension has computed, before it is written; n old regions, m new ones."""

    before: Parent
    found: NewPhotographs
    examined: Examined  # the new photographs
    everything: day.Regions  # n + m, with the classes that they have now
    accepted: Accepted
    of_unknown: NDArray[np.int64]  # rows that were unknown at first
    descriptors: NDArray[np.float32]  # of these
    region_scores: NDArray[np.float64]  # (m,) how unlike the run's regions
    image_scores: NDArray[np.float64]  # likewise, of the new images
    made_of: str

    @property
    def number(self) -> int:
        return self.before.number + 1

    @property
    def kept(self) -> int:
        """Regions of earlier days."""
        return len(self.before.days)


def write(folder: RunFolder, classifier: Classifier, done: Extended) -> dict[str, Any]:
    """Write all files of the new run; the last one marks it as finished.

    Returns:
        The content of metrics.json.
    """
    before = done.before
    folder.note_progress(stage="report")
    names = before.classes.appended(len(done.accepted.groups), done.number)
    probabilities = _probabilities(classifier, done)
    judged = _judged(classifier, done, probabilities[done.kept :])
    samples = _renamed(done)
    images, regions, moved = _tables(folder, done, samples, names, judged, probabilities)
    extension = _record(done, names, regions, moved, classifier.run)
    folder.write_text(
        run_record.CONFIG, (before.root / run_record.CONFIG).read_text(encoding="utf-8")
    )
    _note_images(folder, done, samples)
    for name in (map_store.LEARNED, journal.NAME):  # old regions keep their rows
        if (before.root / name).is_file():
            copy(before.root / name, folder.path(name))
    metadata = replace(classifier.metadata, class_names=names.names)
    checkpoint.save_model(folder.path(parent.MODEL), classifier.network, metadata)
    _features(folder, classifier, done)
    folder.write_json(class_list.FILE, names.as_json())
    folder.write_json(record.FILE, extension.as_json())
    metrics = _metrics(classifier, done, extension, images, regions)
    _report(folder, classifier, done, samples, names, judged, extension, metrics)
    folder.finish(metrics)
    return folder.metrics


def _probabilities(classifier: Classifier, done: Extended) -> NDArray[np.float64]:
    """(n + m, K) of the extended network; a region of a group has its class."""
    network, metadata = classifier.network, classifier.metadata
    tokens = torch.from_numpy(done.everything.tokens).to(network.heads.prototypes.device)
    with torch.inference_mode():
        logits = network.heads.classify(tokens)[metadata.head]
    found = novel_probabilities(logits, network.n_base, metadata.train.student_temperature)
    own = found.cpu().numpy()
    first = len(done.before.classes.classes)
    own[:, :first] = own[:, :first] @ classifier.naming.merging
    for number, group in enumerate(done.accepted.groups):
        odd = group.rows[own[group.rows].argmax(1) != first + number]
        own[odd] = np.eye(own.shape[1])[first + number]
    return own


def _judged(classifier: Classifier, done: Extended, probabilities: NDArray[np.float64]) -> Judged:
    """The new photographs, as the extended run sees them."""
    scores = done.region_scores.copy()
    scores[done.everything.classes[done.kept :] >= 0] = 0  # of a new class: not unknown any more
    return judge(
        probabilities,
        done.examined.cropped.regions,
        classifier.metadata.fusion,
        scores,
        done.image_scores,
        verdicts=True,
    )


def _renamed(done: Extended) -> tuple[Sample, ...]:
    """The new photographs with ids that no earlier one has."""
    samples = done.found.dataset.samples
    ids = unused_ids([s.id for s in samples], [row["id"] for row in done.before.images])
    return tuple(replace(s, id=name) for s, name in zip(samples, ids, strict=True))


def _tables(
    folder: RunFolder,
    done: Extended,
    samples: tuple[Sample, ...],
    names: ClassList,
    judged: Judged,
    probabilities: NDArray[np.float64],
) -> tuple[list[Row], list[Row], tuple[Moved, ...]]:
    """Write predictions.csv and regions.csv of all photographs so far; their rows, and moves."""
    cropped = done.examined.cropped
    places = folder.path(parent.IMAGES), folder.path(parent.REGIONS)
    csv_files.write_predictions(places[0], samples, cropped, judged, names.names, None)
    csv_files.write_regions(places[1], samples, cropped.regions, judged, names.names, None, None)
    new_images, new_regions = (known_regions.read_rows(place, ("id",)) for place in places)
    for number, row in enumerate(new_regions, done.kept):
        row["region"] = str(number)
    regions, moved = _moved(done, names, probabilities)
    images = _images_moved(done.before.images, regions, {one.image for one in moved}, names)
    regions, images = regions + new_regions, images + new_images
    for place, rows, new in zip(places, (images, regions), (new_images, new_regions), strict=True):
        write_table(place, rows, list((new or rows)[0]))
    return images, regions, moved


def write_table(place: Path, rows: list[Row], columns: list[str] | None = None) -> None:
    """Write rows as a table; columns None: those of the first row.

    Raises:
        InputError: the file cannot be written.
    """
    columns = columns or list(rows[0])
    csv_files.write_rows(place, columns, ([row.get(key, "") for key in columns] for row in rows))


def _moved(
    done: Extended, names: ClassList, probabilities: NDArray[np.float64]
) -> tuple[list[Row], tuple[Moved, ...]]:
    """Rows of the regions of earlier days, and which of them changed."""
    rows, moved = [], []
    old, now = done.before.known.classes, done.everything.classes
    for number, row in enumerate(done.before.regions):
        if old[number] != now[number]:
            class_id = int(now[number])
            name = names.names[class_id]
            moved.append(Moved(number, row["id"], row["class_name"], name))
            confidence = f"{probabilities[number, class_id]:.4f}"
            row = {**row, "class": str(class_id), "class_name": name, "confidence": confidence}
        rows.append(row)
    return rows, tuple(moved)


def _images_moved(
    images: list[Row], regions: list[Row], touched: set[str], names: ClassList
) -> list[Row]:
    """Rows of the photographs of earlier days.

    A photograph takes a new class if regions of that class hold most of its anomalous pixels.
    """
    areas: dict[str, Counter[str]] = {name: Counter() for name in touched}
    confidence: dict[tuple[str, str], list[float]] = {}
    for row in regions:
        if row["id"] in touched:
            areas[row["id"]][row["class"]] += int(row["area"])
            confidence.setdefault((row["id"], row["class"]), []).append(float(row["confidence"]))
    rows = []
    for row in images:
        if row["id"] in touched:
            own = areas[row["id"]]
            class_id, area = own.most_common(1)[0]
            if 2 * area > own.total() and class_id not in VERDICTS.values():
                sure = f"{np.mean(confidence[row['id'], class_id]):.4f}"
                name = names.names[int(class_id)]
                row = {**row, "class": class_id, "class_name": name, "confidence": sure}
        rows.append(row)
    return rows


def _record(
    done: Extended, names: ClassList, regions: list[Row], moved: tuple[Moved, ...], run: Path
) -> Extension:
    before = done.before
    first = len(before.classes.classes)
    appended = [
        Appended(
            id=first + number,
            name=names.names[first + number],
            regions=len(group.rows),
            images=len({regions[row]["id"] for row in group.rows.tolist()}),
            stability=round(group.stability, 4),
        )
        for number, group in enumerate(done.accepted.groups)
    ]
    starts = before.extension.first_regions if before.extension else ()
    return Extension(
        format=record.FORMAT,
        number=done.number,
        parent=str(run),
        made_of=done.made_of,
        images=len(done.found.dataset.samples),
        known_before=done.found.known_before,
        classes_before=first,
        appended=tuple(appended),
        moved=moved,
        first_regions=(*starts, done.kept),
        waiting=int((done.everything.classes == UNKNOWN).sum()),
        groups_refused=done.accepted.refused,
        out_of_scope=int((done.image_scores > 1).sum()),
    )


def _note_images(folder: RunFolder, done: Extended, samples: tuple[Sample, ...]) -> None:
    """Digests of all photographs so far, so that none is taken twice."""
    new = {s.id: content for s, content in zip(samples, done.found.digests, strict=True)}
    known = parent.photographs(done.before.root)
    folder.note_inputs({"extension": {"made_of": done.made_of}, "image": {**known, **new}})


def _features(folder: RunFolder, classifier: Classifier, done: Extended) -> None:
    """What the next extension and the next prediction compare with."""
    looks = done.examined.looks
    assert looks is not None  # the run has kept what they are compared with
    images = done.before.seen[1]
    now, index = done.everything.classes, done.examined.cropped.regions.image_index
    areas = done.examined.cropped.regions.areas
    today = np.flatnonzero((now[done.kept :] >= 0) & (areas > 0))
    waited = done.before.waiting
    first_new = _next_image(done.before) + len({row["id"] for row in done.before.regions})
    new_regions = Seen(looks[0][today], first_new + index[today])
    seen_regions = joined(done.before.seen[0], seen_since(done.before, now), new_regions)
    inside = np.flatnonzero(done.image_scores <= 1)
    seen_images = joined(images, Seen(looks[1][inside], first_new + inside))
    every_look = done.before.known.looks
    if every_look is not None:
        new = appearance.in_every_turn(classifier.network, done.examined.cropped.regions)
        every_look = np.concatenate([every_look, new])
    known_regions.write(folder.root, done.everything.tokens, every_look, seen_regions, seen_images)
    left = now[done.of_unknown] == UNKNOWN
    rows = done.of_unknown[left]
    new_looks = looks[0][done.of_unknown[done.of_unknown >= done.kept] - done.kept]
    all_looks = np.concatenate([waited.looks, new_looks])
    waiting.write(folder.root, Waiting(rows, done.descriptors[left], all_looks[left]))


def seen_since(before: Parent, now: NDArray[np.int64]) -> Seen:
    """The regions of a run that waited, and belong to a class by now.

    Args:
        before: the run.
        now: classes of all regions, the run's first.
    """
    waited = before.waiting
    became = now[waited.rows] >= 0
    ids = [row["id"] for row in before.regions]
    numbers = {name: k for k, name in enumerate(dict.fromkeys(ids), _next_image(before))}
    of_waited = [numbers[ids[row]] for row in waited.rows[became].tolist()]
    return Seen(waited.looks[became], np.array(of_waited, np.int64))


def _next_image(before: Parent) -> int:
    """A number that none of the images that the run has seen has."""
    return 1 + max(int(seen.images.max(initial=-1)) for seen in before.seen)


def joined(*parts: Seen) -> Seen:
    """All of them; some of everywhere, if they are too many."""
    features = np.concatenate([part.features for part in parts])
    images = np.concatenate([part.images for part in parts])
    rows = evenly(np.arange(len(features)))
    return Seen(features[rows], images[rows])


def unscored(
    images: list[Row], regions: list[Row], metadata: checkpoint.ModelMetadata, classes: int
) -> dict[str, Any]:
    """Of metrics.json: what is counted in a run that is made from another one, without labels."""
    return {
        "scores": {"image": None, "region": None},
        "normal_recall": {"image": None, "region": None},
        "detection": {},
        "counts": {
            "images": len(images),
            "images_without_defect_found": sum(row["main_elements"] == "0" for row in images),
            "regions": len(regions),
            "novel_classes": classes,
            "base_classes": len(metadata.base_classes),
        },
    }


def _metrics(
    classifier: Classifier,
    done: Extended,
    extension: Extension,
    images: list[Row],
    regions: list[Row],
) -> dict[str, Any]:
    metadata, old = classifier.metadata, done.before.metrics
    return {
        "dataset": old["dataset"],
        "category": old["category"],
        "detector": done.before.settings.detector,
        **unscored(
            images, regions, metadata, len(done.before.classes.classes) + len(extension.appended)
        ),
        "extension": {
            "number": extension.number,
            "parent": extension.parent,
            "summary": list(extension.sentences),
        },
        "mebin": {
            "search_range": list(metadata.mebin.search_range or ()),
            "gate": metadata.mebin.gate,
            "raw_range": metadata.raw_range,
        },
        "head": metadata.head,
        "seed": done.before.settings.values["seed"],
        "device": devices.describe(classifier.device),
        "warnings": list(done.found.dataset.warnings),
        "versions": versions(),
    }


def _report(
    folder: RunFolder,
    classifier: Classifier,
    done: Extended,
    samples: tuple[Sample, ...],
    names: ClassList,
    judged: Judged,
    extension: Extension,
    metrics: dict[str, Any],
) -> None:
    """A page of the new photographs, with what was appended and moved."""
    shown = (*names.names, *VERDICTS.values())
    places = {verdict: len(names.names) + n for n, verdict in enumerate(VERDICTS)}

    def place(classes: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.array([places.get(k, k) for k in classes.tolist()], np.int64)

    values = done.before.settings.values
    data = report.ReportData(
        title=f"{metrics['dataset']} / {metrics['category']}: extension",
        subtitle=f"maps: {done.before.settings.detector} · seed {values['seed']}",
        warnings=done.found.dataset.warnings,
        notes=(*extension.sentences, "This page shows the new photographs only."),
        metrics=metrics,
        config_yaml=folder.path(run_record.CONFIG).read_text(encoding="utf-8"),
        samples=samples,
        labels=None,
        regions=done.examined.cropped.regions,
        region_targets=None,
        maps=done.examined.maps,
        region_class=place(judged.region_class),
        region_confidence=judged.region_confidence,
        image_class=place(judged.image_class),
        image_confidence=judged.image_confidence,
        class_names=shown,
        matching=np.full(len(shown), UNLABELLED),
        resize_mode=cast(ResizeMode, classifier.metadata.regions.resize_mode),
    )
    report.write_report(folder.path("report.html"), data)
