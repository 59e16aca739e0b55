"""The folder of a learned run: a run like any other, with the decisions that still hold."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from anomalyncd.decisions.actions import decided_now, to_line
from anomalyncd.decisions.journal import NAME
from anomalyncd.decisions.state import active
from anomalyncd.detectors import map_store
from anomalyncd.extension import parent, record, waiting
from anomalyncd.extension.parent import Parent
from anomalyncd.extension.record import Appended, Extension, Moved, many
from anomalyncd.extension.result import Row, joined, seen_since, unscored, write_table
from anomalyncd.extension.waiting import Waiting
from anomalyncd.learning.taught import Taught, still_holding
from anomalyncd.models import checkpoint
from anomalyncd.models.checkpoint import ModelMetadata
from anomalyncd.models.model import Model
from anomalyncd.results import known_regions
from anomalyncd.review.session import Review
from anomalyncd.runtime.versions import versions
from anomalyncd.storage import class_list, run_record
from anomalyncd.storage.atomic import copy
from anomalyncd.storage.run_folder import RunFolder
from anomalyncd.types import UNKNOWN, VERDICTS


@dataclass(frozen=True)
class Learned:
    """A learned run, before it is written."""

    before: Parent
    review: Review
    taught: Taught
    network: Model
    metadata: ModelMetadata  # of the run that it is learned from
    agreeing: float  # share of the regions that the network puts into the class that they have
    made_of: str
    seconds: float


def write(folder: RunFolder, done: Learned) -> dict[str, Any]:
    """Write all files of the new run; the last one marks it as finished.

    Returns:
        The content of metrics.json.
    """
    before, taught = done.before, done.taught
    root, now = before.root, taught.region_class
    regions = _regions(done)
    images = _images(done, regions)
    write_table(folder.path(parent.REGIONS), regions)
    write_table(folder.path(parent.IMAGES), images)
    for name in (run_record.CONFIG, map_store.LEARNED):
        if (root / name).is_file():
            copy(root / name, folder.path(name))
    metadata = replace(done.metadata, class_names=taught.classes.names)
    checkpoint.save_model(folder.path(parent.MODEL), done.network, metadata)
    known = before.known
    seen = joined(before.seen[0], seen_since(before, now)), before.seen[1]
    known_regions.write(folder.root, known.tokens, known.looks, *seen)
    waited = before.waiting
    left = now[waited.rows] == UNKNOWN
    if len(waited.rows):
        kept = Waiting(waited.rows[left], waited.descriptors[left], waited.looks[left])
        waiting.write(folder.root, kept)
    folder.write_json(class_list.FILE, taught.classes.as_json())
    step = _record(done, regions)
    folder.write_json(record.FILE, step.as_json())
    holding = still_holding(done.review.state, taught.ids, known.ids)
    lines = [to_line(decided_now(action, carried=True)) for action in holding]
    folder.write_text(NAME, "".join(lines))
    folder.finish(_metrics(done, step, images, regions))
    return folder.metrics


def _regions(done: Learned) -> list[Row]:
    taught, names = done.taught, done.taught.classes.names
    rows = []
    for row, number, share in zip(
        done.before.regions, taught.region_class.tolist(), taught.confidence.tolist(), strict=True
    ):
        if number >= 0:
            said = {"class": str(number), "class_name": names[number], "confidence": f"{share:.4f}"}
            row = {**row, **said}
        rows.append(row)
    return rows


def _images(done: Learned, regions: list[Row]) -> list[Row]:
    """A photograph has the class of most of its anomalous pixels.

    Regions that are no defects count only if it has no others. One with a verdict keeps it as long
    as its regions with a verdict hold more pixels.
    """
    pixels: dict[str, Counter[str]] = defaultdict(Counter)
    unlike: Counter[str] = Counter()
    sure: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in regions:
        weight = int(row["area"]) + 1
        if row["class"] in VERDICTS.values():
            unlike[row["id"]] += weight
        else:
            is_normal = row["class"] == str(done.taught.normal)
            pixels[row["id"]][row["class"]] += 0 if is_normal else weight
            sure[row["id"], row["class"]].append(float(row["confidence"]))
    rows = []
    for row in done.before.images:
        (class_id, weight), *_ = pixels[row["id"]].most_common(1) or [("", 0)]
        stays = row["class"] in VERDICTS.values() and weight < unlike[row["id"]]
        if class_id and not stays:
            name = done.taught.classes.names[int(class_id)]
            share = f"{np.mean(sure[row['id'], class_id]):.4f}"
            row = {**row, "class": class_id, "class_name": name, "confidence": share}
        rows.append(row)
    return rows


def _record(done: Learned, regions: list[Row]) -> Extension:
    before, names = done.before, done.taught.classes.names
    was, now = before.known.classes, done.taught.region_class
    first = len(before.classes.classes)
    appended = [
        Appended(
            id=number,
            name=names[number],
            regions=int((now == number).sum()),
            images=len({regions[row]["id"] for row in np.flatnonzero(now == number).tolist()}),
            stability=1.0,  # a person has made it
        )
        for number in range(first, len(names))
    ]
    moved = [
        Moved(row, regions[row]["id"], before.regions[row]["class_name"], names[now[row]])
        for row in np.flatnonzero(was != now).tolist()
    ]
    starts = before.extension.first_regions if before.extension else ()
    return Extension(
        format=record.FORMAT,
        number=before.number + 1,
        parent=str(before.root),
        made_of=done.made_of,
        images=0,
        known_before=0,
        classes_before=first,
        appended=tuple(appended),
        moved=tuple(moved),
        first_regions=(*starts, len(regions)),
        waiting=int((now == UNKNOWN).sum()),
        groups_refused=(),
        out_of_scope=0,
    )


def _metrics(
    done: Learned, step: Extension, images: list[Row], regions: list[Row]
) -> dict[str, Any]:
    before, state = done.before, done.review.state
    decisions = [one for one in active(done.review.decisions) if not one.is_carried]
    decided, moved = int(state.decided.sum()), len(step.moved)
    summary = [
        f"Learned from {many(len(decisions), 'decision')} on {before.root.name}: {decided} of "
        f"{many(len(regions), 'region')} {'was' if decided == 1 else 'were'} decided, the others "
        "follow those that they look like.",
        f"{many(moved, 'region')} changed class.",
        *(
            f"New class {one.id}, {one.name}: {many(one.regions, 'region')}."
            for one in step.appended
        ),
        f"The network puts {100 * done.agreeing:.0f} % of the regions into the class that they "
        "have here.",
    ]
    kept = ("dataset", "category", "detector", "mebin", "head", "seed", "device")
    return {
        **{key: before.metrics[key] for key in kept if key in before.metrics},
        **unscored(images, regions, done.metadata, len(done.taught.classes.classes)),
        "learning": {
            "parent": str(before.root),
            "decisions": len(decisions),
            "decided": decided,
            "agreeing": round(done.agreeing, 4),
            "summary": summary,
        },
        "seconds": {"learn": round(done.seconds, 3)},
        "warnings": [],
        "versions": versions(),
    }
