"""Prepare a dataset: get it, unpack it, arrange it and verify it. The user's files are not changed.

the user's archive or folder, or a download
  └─ its files are found (layouts) ──► linked or copied into the target ──► verified, once
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from anomalyncd.data.folders import require_targets
from anomalyncd.errors import InputError
from anomalyncd.preparation import layouts, sources
from anomalyncd.preparation.archive import extract
from anomalyncd.preparation.download import fetch
from anomalyncd.preparation.layouts import Layout
from anomalyncd.preparation.sources import Source
from anomalyncd.preparation.verification import find_problems
from anomalyncd.runtime.console import say
from anomalyncd.storage.atomic import atomic_write
from anomalyncd.storage.cache import digest

_RECORD = ".verified.json"


@dataclass(frozen=True)
class Report:
    """What the prepared folder holds."""

    images: int
    groups: int
    problems: list[str]  # empty: the dataset is complete and readable
    absent: list[str]  # categories of which no file exists


DATASETS: dict[str, tuple[Source, Layout]] = {
    "mvtec": (sources.MVTEC, layouts.MVTEC),
    "mtd": (sources.MTD, layouts.MTD),
    "aebad": (sources.AEBAD, layouts.AEBAD),
}


def prepare(name: str, given: Path | None, target: Path, *, quiet: bool = False) -> Report:
    """Fill `target` with a dataset and verify it; files that it already holds are not changed.

    Files are hard links where the file system supports them, so that no second copy is needed.
    A second call sees from sizes and times that nothing has changed, and reads no image.

    Args:
        name: a key of `DATASETS`.
        given: the user's archive or folder; None: download, unless `target` exists.
        target: the folder to fill, which is then arranged as the configuration expects.
        quiet: show no progress.

    Raises:
        InputError: `given` holds no such dataset or cannot be read, the download fails, or the
            target cannot be written.
    """
    source, layout = DATASETS[name]
    if given is not None and not given.exists():
        raise InputError(f"{given}: no such archive or folder; set --from")
    if target.exists() and not target.is_dir():
        raise InputError(f"{target}: not a folder; set --to")
    given = given and given.resolve()  # a category's folder may be the working folder
    with _disk_errors_as_input_errors(target, given):
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.parent / f".{target.name}.lock"):
            known = _read_record(target)
            whole = known["fingerprint"] == _fingerprint(target)
            archives = known["archives"]
            if given is None and not target.exists():
                given = _download(source, target, quiet)
            if given is not None and given.is_dir():
                _fill(target, layout.find(given, given), quiet)
            elif given is not None and not (whole and _mark(given) in archives):
                _fill_from_archive(target, given, source, layout, quiet)
                archives = [*archives, _mark(given)]
            return _verify(target, source, layout, known, archives, quiet)


@contextmanager
def _disk_errors_as_input_errors(target: Path, given: Path | None) -> Iterator[None]:
    """Report a disk error with a path that the user knows, not with that of a temporary folder,
    which is removed by then."""
    try:
        yield
    except OSError as error:
        of_given = given is not None and str(error.filename).startswith(str(given))
        if of_given and error.errno in (errno.EACCES, errno.EPERM):
            raise InputError(
                f"{error.filename}: cannot be read ({error.strerror}); make it readable"
            ) from error
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise InputError(
            f"{target}: cannot be filled ({error.strerror or error}); "
            f"{'free space there' if full else 'make its parent folder writable'}, or choose "
            "another folder with --to"
        ) from error


def _download(source: Source, target: Path, quiet: bool) -> Path:
    if source.archive is None:
        raise InputError(
            f"{target}: not found, and {source.title} cannot be downloaded by a program; "
            f"download it from {source.page} (it links to the files), then pass it: --from ARCHIVE"
        )
    archive = target.parent / source.archive.name
    try:
        fetch(source.archive, archive, quiet=quiet)
        for file in source.beside:
            fetch(file, target.parent / file.name, quiet=quiet)
    except InputError as error:
        raise InputError(
            f"{error}\nDownload by hand from {source.page}, then pass the archive: --from ARCHIVE"
        ) from error
    return archive


def _fill_from_archive(
    target: Path, archive: Path, source: Source, layout: Layout, quiet: bool
) -> None:
    unpacked = target.with_name(f".{target.name}.unpacked")
    shutil.rmtree(unpacked, ignore_errors=True)  # of a process that was killed
    # Named after the archive: the category's name, if the archive holds no folder for it.
    inside = unpacked / archive.name.split(".")[0]
    inside.mkdir(parents=True)
    try:
        extract(archive, inside, quiet=quiet)
        found = layout.find(inside, archive)
        for file in source.beside:
            path = archive.with_name(file.name)
            if path.is_file():
                found.setdefault(file.name, path)
        _fill(target, found, quiet)
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)


def _fill(target: Path, found: dict[str, Path], quiet: bool) -> None:
    """Add to `target` what it lacks; each of its entries appears complete or not at all."""
    entries = dict.fromkeys(place.split("/")[0] for place in found)
    left = [entry for entry in entries if (target / entry).exists()]
    if left and not quiet:
        say(f"Already in {target}, not changed: {', '.join(left)}")
    building = target.with_name(f".{target.name}.building")
    shutil.rmtree(building, ignore_errors=True)  # of a process that was killed
    building.mkdir()
    try:
        for place, path in found.items():
            if place.split("/")[0] in left:
                continue
            for file in _files(path):
                linked = building / place / file.relative_to(path)
                linked.parent.mkdir(parents=True, exist_ok=True)
                _link(file, linked)
        target.mkdir(exist_ok=True)
        for entry in building.iterdir():
            entry.rename(target / entry.name)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _files(path: Path) -> list[Path]:
    """The file itself, or all files in the folder except hidden ones."""
    if path.is_file():
        return [path]
    found = [file for file in sorted(path.rglob("*")) if file.name[0] != "."]
    require_targets(found)
    return [file for file in found if file.is_file()]


def _link(file: Path, place: Path) -> None:
    try:
        os.link(file.resolve(), place)
    except OSError:  # another disk, or a file system without links
        shutil.copyfile(file, place)


def _verify(
    target: Path,
    source: Source,
    layout: Layout,
    known: dict,
    archives: list,
    quiet: bool,
) -> Report:
    groups = layout.groups(target)
    images = sum(len(group.pairs) for group in groups)
    there = {_category(group.name) for group in groups}
    absent = sorted({_category(name) for name in source.images} - there)
    problems: list[str] = []
    fingerprint = _fingerprint(target)
    if not images:
        problems.append(f"{target}: no images; move the folder away to fill it again")
    elif known["fingerprint"] != fingerprint:
        problems += find_problems(groups, source, quiet=quiet)
        if not source.separable:
            problems += [f"{target / name}: not found" for name in absent]
        problems += [
            f"{target / file.name}: not found; get it from {file.addresses[0]}"
            for file in source.beside
            if not (target / file.name).is_file()
        ]
    record = {"fingerprint": fingerprint, "archives": archives}
    if not problems and record != known:
        with atomic_write(target / _RECORD) as draft:
            draft.write_text(json.dumps(record))
    return Report(images, len(groups), problems, absent)


def _category(group: str) -> str:
    return group.split("/")[0]


def _read_record(target: Path) -> dict:
    """What was verified in `target` before: its fingerprint and the archives unpacked into it."""
    try:
        record = json.loads((target / _RECORD).read_text())
        if isinstance(record["archives"], list) and "fingerprint" in record:
            return record
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass  # missing or damaged: nothing counts as verified
    return {"fingerprint": None, "archives": []}


def _fingerprint(folder: Path) -> str:
    """A digest of the names, sizes and times of the files in the folder, which are not read."""
    stats = ((file.relative_to(folder).as_posix(), file.stat()) for file in _files(folder))
    return digest([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats])


def _mark(archive: Path) -> list:
    stat = archive.stat()
    return [archive.name, stat.st_size, stat.st_mtime_ns]
