"""All that is read of the run that is extended; its folder is never changed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomalyncd.decisions import journal, naming
from anomalyncd.decisions.naming import Naming
from anomalyncd.detectors import map_store
from anomalyncd.errors import InputError
from anomalyncd.extension import record, waiting
from anomalyncd.extension.record import Extension
from anomalyncd.extension.waiting import Waiting
from anomalyncd.inference.unknown import Seen
from anomalyncd.models.checkpoint import ModelMetadata
from anomalyncd.results import known_regions
from anomalyncd.results.known_regions import KnownRegions
from anomalyncd.storage import class_list, run_record
from anomalyncd.storage.cache import digest_files
from anomalyncd.storage.class_list import ClassList
from anomalyncd.storage.run_folder import RunFolder
from anomalyncd.types import OUT_OF_SCOPE, UNKNOWN

IMAGES, REGIONS, MODEL = "predictions.csv", "regions.csv", "model.safetensors"
# Files that an extension is computed from.
_FILES = (
    *(run_record.CONFIG, run_record.METRICS, IMAGES, REGIONS, MODEL, known_regions.FEATURES),
    *(map_store.LEARNED, class_list.FILE, record.FILE, waiting.FILE, journal.NAME),
)
_IMAGE_COLUMNS = ("id", "image", "class", "class_name", "confidence", "main_elements")
_REGION_COLUMNS = ("region", "id", "area", "class", "class_name", "confidence")


@dataclass(frozen=True)
class Parent:
    """A finished run, n regions."""

    root: Path
    settings: run_record.Settings
    metrics: dict[str, Any]  # the whole of metrics.json
    classes: ClassList  # with the names that a review has given
    extension: Extension | None  # None: it extends no other run
    known: KnownRegions
    seen: tuple[Seen, Seen]  # regions and images to compare new ones with
    waiting: Waiting  # its unknown regions
    images: list[dict[str, str]]  # rows of predictions.csv
    regions: list[dict[str, str]]  # rows of regions.csv
    days: NDArray[np.int64]  # (n,) the extension that each region came with; 0: the first run

    @property
    def number(self) -> int:
        """Of extensions before."""
        return self.extension.number if self.extension else 0


def read(root: Path, metadata: ModelMetadata, width: int) -> Parent:
    """Read a finished run.

    Args:
        root: its folder.
        metadata: of its model.
        width: of its network's features.

    Raises:
        InputError: the run is not finished, or a file is missing, damaged, or does not belong to
            the others.
    """
    if not RunFolder(root).finished:
        raise InputError(f"{root}: the run is not finished; repeat its command to resume it")
    classes = class_list.read(root, metadata.class_names)
    extension = record.read(root, classes)
    given = naming.read(root, classes.names)
    known = known_regions.read(root)
    seen = known_regions.read_seen(root, width)
    if seen is None:
        raise InputError(
            f"{root}: its version kept nothing to compare new regions with; repeat the run"
        )
    highest = len(metadata.class_names) - 1
    path = root / REGIONS
    if (
        len(known.classes)
        and not OUT_OF_SCOPE <= known.classes.min() <= known.classes.max() <= highest
    ):
        raise InputError(f"{path}: a class that is none of the 0 to {highest} of the run's model")
    if known.tokens.shape[1] != width:
        raise InputError(f"{root / known_regions.FEATURES}: not of the run's network")
    # What was merged has no regions any more, and keeps its own name.
    names = [given.names[k] if into == k else classes.names[k] for k, into in enumerate(given.into)]
    classes = classes.renamed(names)
    is_learned = known.classes >= 0  # and no verdict
    became = np.where(is_learned, np.array(given.into)[known.classes * is_learned], known.classes)
    starts = extension.first_regions if extension else ()
    if starts and starts[-1] > len(known.classes):
        raise InputError(f"{root / record.FILE}: more regions than {path.name} has")
    rows = np.arange(len(known.classes))
    return Parent(
        root=root,
        settings=run_record.read_settings(root),
        metrics=run_record.read_metrics(root / run_record.METRICS)[1],
        classes=classes,
        extension=extension,
        known=replace(known, classes=became),
        seen=seen,
        waiting=waiting.read(root, np.flatnonzero(known.classes == UNKNOWN), width),
        images=_named(known_regions.read_rows(root / IMAGES, _IMAGE_COLUMNS), given, classes),
        regions=_named(known_regions.read_rows(path, _REGION_COLUMNS), given, classes),
        days=np.searchsorted(np.array(starts, int), rows, side="right"),
    )


def _named(rows: list[dict[str, str]], given: Naming, classes: ClassList) -> list[dict[str, str]]:
    """The rows of a table with the names and merges that a review has given."""
    said = {str(k): into for k, into in enumerate(given.into)}
    return [
        {**row, "class": str(said[row["class"]]), "class_name": classes.names[said[row["class"]]]}
        if row["class"] in said
        else row
        for row in rows
    ]


def identity(root: Path) -> dict[str, str]:
    """Digests of the files that an extension is computed from, by name."""
    names = [name for name in _FILES if (root / name).is_file()]
    return dict(zip(names, digest_files(root / name for name in names), strict=True))


def photographs(root: Path) -> dict[str, str]:
    """Digests of the photographs of a run, by id; none if it did not record them."""
    return (RunFolder(root).inputs or {}).get("image", {})
