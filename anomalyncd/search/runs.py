"""Runs as entries of a collection, and the regions that resemble those of a photograph.

What is compared are the class tokens of the run's network. Only networks with equal weights give
comparable ones: a run and its extensions. So each network has its own collection in a place.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anomalyncd import detectors
from anomalyncd.config import FilesDetectorConfig
from anomalyncd.data.datasets import one_photograph
from anomalyncd.decisions import naming
from anomalyncd.errors import InputError
from anomalyncd.results import known_regions
from anomalyncd.search.collection import Collection, Entry, Similar, Wanted
from anomalyncd.storage import run_record
from anomalyncd.storage.cache import Cache, digest, digest_files
from anomalyncd.storage.tensors import load_tensors
from anomalyncd.types import Box

FOLDER = "search"  # in the run's folder, if no other place is given
_SERVED = re.compile(r"https?://\S+")


@dataclass(frozen=True)
class Place:
    """Where a collection is: in a folder, or on a server if there is a URL."""

    path: Path
    url: str | None = None

    def __post_init__(self) -> None:
        if self.url is not None and not _SERVED.fullmatch(self.url):
            raise InputError(f"search.url={self.url}: expected http://… or https://…")


@dataclass(frozen=True)
class Found:
    """A known region, and the region of the photograph that it resembles."""

    similar: Similar
    box: Box  # in the photograph


@contextmanager
def opened(place: Place, run: Path) -> Iterator[Collection]:
    """The collection of all regions that can be compared with those of a run.

    Raises:
        InputError: the run is not finished, or the collection cannot be used.
    """
    space, width = _network(run)
    name = f"regions-{space[:16]}"
    made: Collection
    if place.url:
        from anomalyncd.search.server import ServerCollection

        made = ServerCollection(place.url, name, width)
    else:
        from anomalyncd.search.embedded import EmbeddedCollection

        made = EmbeddedCollection(place.path / name, width)
    try:
        yield made
    finally:
        made.close()


def fill(collection: Collection, run: Path) -> int:
    """Add the regions of a run that have a main element, unless they are there already.

    Returns:
        How many were added.

    Raises:
        InputError: the run is not finished or damaged, or the collection cannot be used.
    """
    known = known_regions.read(run)
    rows = np.flatnonzero(known.areas > 0)
    folder = str(run.resolve())
    names = naming.of_regions(run, known.ids, known.classes, known.class_names)
    version = digest([*digest_files([run / known_regions.FEATURES, run / "regions.csv"]), names])
    collection.remove_others(folder, version)
    if collection.count({"run": folder, "version": version}) == len(rows):
        return 0
    product = run_record.read_settings(run).values["category"]
    entries = [
        Entry(
            run=folder,
            version=version,
            number=int(row),
            product=product,
            image=str(known.images[row].resolve()),
            box=tuple(known.boxes[row].tolist()),
            class_name=names[row],
            confidence=float(known.confidences[row]),
        )
        for row in rows
    ]
    collection.add(entries, known.tokens[rows])
    return len(rows)


def regions_of(
    run: Path, photo: Path, maps: Path | None = None
) -> tuple[list[Box], NDArray[np.float32]]:
    """The regions of a photograph with a main element: boxes, and (n, width) class tokens.

    Those of the run's own photographs are known. Others are cut as the run would cut them.

    Args:
        run: a finished run's folder.
        photo: one photograph.
        maps: a folder with its anomaly map, if the run kept no detector.

    Raises:
        InputError: the run, the photograph or its map cannot be used.
    """
    known = known_regions.read(run)
    place = photo.resolve()
    own = [i for i, image in enumerate(known.images) if image.resolve() == place]
    if own:
        rows = [i for i in own if known.areas[i] > 0]
        return [Box(*known.boxes[i].tolist()) for i in rows], known.tokens[rows]
    from anomalyncd.prediction.classifier import load  # takes seconds to import

    classifier = load(run)
    with tempfile.TemporaryDirectory() as workspace:
        cache = Cache(Path(workspace))
        dataset = one_photograph(photo, classifier.max_megapixels)
        detector = (
            classifier.own_detector(cache)
            if maps is None
            else detectors.create(
                FilesDetectorConfig(path=str(maps)), "images", classifier.device, cache.root
            )
        )
        found = classifier.examine(dataset, detector, "images", cache, settings={})
        regions = found.cropped.regions
        rows = np.flatnonzero(regions.areas > 0).tolist()
        return [Box(*regions.boxes[i].tolist()) for i in rows], found.classified.tokens[rows]


def similar(
    collection: Collection,
    boxes: list[Box],
    features: NDArray[np.float32],
    top: int,
    wanted: Wanted,
) -> list[Found]:
    """Known regions that resemble any region of a photograph, each once, the most similar first.

    Args:
        collection: to search.
        boxes: n regions of the photograph.
        features: (n, width) of them.
        top: how many to find.
        wanted: which may be found.
    """
    best: dict[str, Found] = {}  # by id
    for box, feature in zip(boxes, features, strict=True):
        for hit in collection.nearest(feature, top, wanted):
            before = best.get(hit.entry.id)
            if before is None or hit.score > before.similar.score:
                best[hit.entry.id] = Found(hit, box)
    return sorted(best.values(), key=lambda found: -found.similar.score)[:top]


def _network(run: Path) -> tuple[str, int]:
    """What identifies the weights before the heads, and the width of the class token."""
    path = run / "model.safetensors"
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected the folder of a finished run")
    tensors, header = load_tensors(path)
    metadata = header.get("metadata")
    prototypes = tensors.get("heads.prototypes")
    if not isinstance(metadata, dict) or prototypes is None or prototypes.ndim != 3:
        raise InputError(f"{path}: not the model of a run, or damaged")
    trained = {
        name: digest(tensor.float().numpy().tobytes().hex())
        for name, tensor in sorted(tensors.items())
        if not name.startswith("heads.")
    }
    made_by = [metadata.get("frozen_hash"), metadata.get("attention"), trained]
    return digest(made_by), prototypes.shape[2]
