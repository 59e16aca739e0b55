"""A content-addressed cache on disk for what is expensive to compute: pictures, maps, regions.

An entry is a folder whose name is the hash of everything it was made from. It is built under a
temporary name, sealed with the digest of every file, synced, and renamed. An entry that does not
match its seal is never used: it is made again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

from anomalyncd.errors import InputError
from anomalyncd.storage.atomic import naming, sync

log = logging.getLogger(__name__)

SEAL = "entry.json"  # in every entry: its name, and size and digest of each of its files

_ABSENT = "does not exist"
_SETTLED = 2_000_000_000  # ns after a change, from which on time stamps show the next one

_known: dict[tuple[int, ...], str] = {}  # digests of settled files by identity


def digest(*parts: Any) -> str:
    """Hash any JSON data; equal in every process and on every machine."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True)
    return hashlib.blake2b(text.encode(), digest_size=10).hexdigest()


def digest_files(paths: Iterable[Path]) -> list[str]:
    """Hash the content of each file; a moved or copied file keeps its hash.

    Raises:
        InputError: a file cannot be read.
    """

    with ThreadPoolExecutor() as pool:
        return list(pool.map(_digest_file, paths))


def _digest_file(path: Path) -> str:
    """Hash a file's content; once per process, as long as the file is the same."""
    try:
        with path.open("rb") as file:
            s = os.fstat(file.fileno())
            identity = (s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns)
            if identity in _known:
                return _known[identity]
            found = hashlib.file_digest(file, "blake2b").hexdigest()[:20]
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); make it readable") from error
    if time.time_ns() - max(s.st_mtime_ns, s.st_ctime_ns) > _SETTLED:
        _known[identity] = found
    return found


class Cache:
    def __init__(self, root: Path) -> None:
        """
        Args:
            root: the folder of all entries; created if needed.

        Raises:
            InputError: it cannot be created.
        """
        self.root = root
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{root}: cannot be created ({error.strerror}); set cache_root=… or output_root=… "
                "to a writable folder"
            ) from error

    def entry(self, kind: str, key: Any, build: Callable[[Path], None]) -> Path:
        """The folder of `kind` and `key`; `build` fills it if it does not exist yet.

        Args:
            kind: a word that starts the folder's name.
            key: all that the content depends on, as JSON.
            build: writes the content into the folder that it is given.
        """
        name = f"{kind}-{digest(kind, key)}"
        place = self.root / name
        if _fault(place) is None:
            return place
        with FileLock(self.root / f".{name}.lock"):  # a second process waits here
            fault = _fault(place)
            if fault is None:
                return place
            if fault != _ABSENT:
                log.warning("%s %s: it is made again", place, fault)
            building = self.root / f".{name}.building"
            shutil.rmtree(building, ignore_errors=True)  # left by a killed process
            building.mkdir()
            try:
                with naming(self.root):
                    build(building)
                    _seal(building, name)
                    _put(building, place)
            finally:
                shutil.rmtree(building, ignore_errors=True)
        return place


def _fault(place: Path) -> str | None:
    """What is wrong with an entry, as text that follows its path; None if it matches its seal."""
    if not os.path.lexists(place):
        return _ABSENT
    try:
        seal = json.loads((place / SEAL).read_text(encoding="utf-8"))
        named = seal["entry"]
        files = {str(name): (int(size), str(known)) for name, (size, known) in seal["files"]}
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return f"is damaged or of an earlier version ({SEAL} is missing or cannot be read)"
    if named != place.name:
        return f"is damaged ({SEAL} is that of another entry)"
    for name, (size, _) in files.items():
        if not (place / name).is_file():
            return f"is damaged ({name} is missing)"
        if (found := (place / name).stat().st_size) != size:
            return f"is damaged ({name} has {found} bytes; expected {size})"
    try:
        digests = digest_files(place / name for name in files)
    except InputError as error:
        return f"is damaged ({error})"
    for (name, (_, known)), digested in zip(files.items(), digests, strict=True):
        if digested != known:
            return f"is damaged ({name} has other content than was written)"
    return None


def _seal(folder: Path, name: str) -> None:
    """Record the digests of all files, and sync them to disk before the entry gets its name."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    with ThreadPoolExecutor() as pool:
        list(pool.map(sync, paths))
    digests = digest_files(paths)
    files = [
        (path.relative_to(folder).as_posix(), (path.stat().st_size, known))
        for path, known in zip(paths, digests, strict=True)
    ]
    seal = folder / SEAL
    seal.write_text(json.dumps({"entry": name, "files": files}), encoding="utf-8")
    sync(seal)
    for path in (*folder.rglob("*"), folder):
        if path.is_dir():
            sync(path)


def _put(built: Path, place: Path) -> None:
    """Rename an entry into its place; replace a damaged one, whose files are removed.

    The damaged one is renamed first, so that a process that has mapped its files can still read
    them. A file in it that the new entry does not have belongs to somebody else and is kept.
    """
    number = 1
    while os.path.lexists(aside := place.with_name(f".{place.name}.damaged-{number}")):
        number += 1
    with suppress(FileNotFoundError):
        place.rename(aside)
    built.rename(place)
    sync(place.parent)
    _remove_ours(aside, place)
    if os.path.lexists(aside):
        log.warning("%s: files that do not belong to the cache are kept here", aside)


def _remove_ours(aside: Path, sound: Path) -> None:
    if aside.is_symlink() or not aside.is_dir():
        return
    below = sorted(sound.rglob("*"), reverse=True)  # content before its folder
    for path in (*below, sound):
        old = aside / path.relative_to(sound)
        with suppress(OSError):  # a folder with a foreign file stays
            if path.is_dir():
                old.rmdir()
            else:
                old.unlink()
