"""The photographs that a run is extended with: found, and those left out that it has already."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from anomalyncd.data import datasets, photographs
from anomalyncd.data.folders import existing
from anomalyncd.errors import InputError
from anomalyncd.storage.cache import digest_files
from anomalyncd.types import Dataset, Sample


@dataclass(frozen=True)
class NewPhotographs:
    """Photographs that the run does not have yet."""

    dataset: Dataset
    digests: tuple[str, ...]  # of their content
    known_before: int  # others that were given, with the same content as one that it has


def find(photos: Sequence[str | Path], known: Iterable[str], max_megapixels: int) -> NewPhotographs:
    """Find photographs, and leave out those whose content the run has already.

    Args:
        photos: folders, at any depth, and image files.
        known: digests of the run's photographs.
        max_megapixels: of the largest image.

    Raises:
        InputError: a file cannot be used, or all are known.
    """
    samples: list[Sample] = []
    warnings: tuple[str, ...] = ()
    for given in map(Path, photos):
        found = _found(given, max_megapixels)
        samples += found.samples
        warnings += found.warnings
    digests = digest_files(sample.image for sample in samples)
    seen, kept = set(known), []
    for sample, content in zip(samples, digests, strict=True):
        if content not in seen:
            seen.add(content)
            kept.append((sample, content))
    if not kept:
        raise InputError(
            f"all {len(samples)} photographs are part of the run already; give it new ones"
        )
    ids = unused_ids([sample.id for sample, _ in kept], ())
    new = [replace(sample, id=name) for (sample, _), name in zip(kept, ids, strict=True)]
    contents = tuple(content for _, content in kept)
    return NewPhotographs(
        Dataset(tuple(new), None, warnings=warnings), contents, len(samples) - len(kept)
    )


def unused_ids(ids: Iterable[str], taken: Iterable[str]) -> list[str]:
    """The same ids, but `a (2)` for an `a` that is taken: cameras begin each day with 0001."""
    used, found = set(taken), []
    for own in ids:
        free, number = own, 2
        while free in used:
            free, number = f"{own} ({number})", number + 1
        used.add(free)
        found.append(free)
    return found


def _found(given: Path, max_megapixels: int) -> Dataset:
    if given.is_file():
        return datasets.one_photograph(given, max_megapixels)
    pile = photographs.find(existing(given, "PHOTOS"))
    if not pile.images:
        raise InputError(f"{given}: no images; expected a folder of photographs, or an image")
    samples = tuple(Sample(pile.name(path), path) for path in pile.images)
    found = Dataset(samples, None, warnings=tuple(pile.warnings()))
    return datasets.with_headers_read(found, max_megapixels)
