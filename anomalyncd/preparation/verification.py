"""Check that a copy of a dataset is complete: count images, match masks, read every file once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from anomalyncd.config import MAX_MEGAPIXELS
from anomalyncd.data.images import read_image, read_mask
from anomalyncd.errors import InputError
from anomalyncd.preparation.layouts import Group
from anomalyncd.preparation.sources import Source
from anomalyncd.regions.boxes import find_boxes
from anomalyncd.runtime.console import progress

Item = TypeVar("Item")
Result = TypeVar("Result")


def find_problems(groups: list[Group], source: Source, *, quiet: bool) -> list[str]:
    """One line for each wrong count, each missing mask and each file that cannot be read."""
    problems = []
    for group in groups:
        published = source.images.get(group.name, len(group.pairs))
        if len(group.pairs) != published:
            problems.append(f"{group.name}: {len(group.pairs)} images; published: {published}")
    pairs = [pair for group in groups for pair in group.pairs]
    problems += filter(None, _map_with_progress("reading every file", _problem_of, pairs, quiet))
    if source.regions is not None:
        masks = [mask for _, mask in pairs if mask is not None]
        counts = list(_map_with_progress("counting regions", _count_regions, masks, quiet))
        problems += [
            f"{mask}: no defect is marked; remove its image"
            for mask, count in zip(masks, counts, strict=True)
            if count == 0
        ]
        total = sum(filter(None, counts))
        if total != source.regions:
            problems.append(f"{total:,} regions; published: {source.regions:,}")
    return problems


def _problem_of(pair: tuple[Path, Path | None]) -> str | None:
    path, mask = pair
    try:
        image = read_image(path, MAX_MEGAPIXELS)
        if mask is None:
            return None
        if not mask.exists():
            return f"{path}: no mask; expected {mask}"
        truth = read_mask(mask, MAX_MEGAPIXELS)
    except InputError as error:
        return str(error)
    if truth.shape != image.shape[:2]:
        return f"{mask}: a mask of {_size(truth)} pixels for an image of {_size(image)}"
    return None


def _size(picture: NDArray) -> str:
    return f"{picture.shape[1]} x {picture.shape[0]}"


def _count_regions(mask: Path) -> int | None:
    """The number of regions that a run would crop with this mask; None if it cannot be read."""
    try:
        truth = read_mask(mask, MAX_MEGAPIXELS)
    except InputError:
        return None
    return len(find_boxes(truth * np.uint8(255), 1)) if truth.any() else 0


def _map_with_progress(
    title: str, work: Callable[[Item], Result], items: Sequence[Item], quiet: bool
) -> Iterator[Result]:
    """Map in order, on all cores (decoding releases the interpreter lock), with a progress bar."""
    pool = ThreadPoolExecutor()
    try:
        with progress(title, len(items), quiet=quiet) as report:
            for done, result in enumerate(pool.map(work, items), 1):
                report(done, "")
                yield result
    finally:
        pool.shutdown(cancel_futures=True)  # after an interrupt, the rest is not started
