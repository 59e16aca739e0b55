"""A content-addressed store on disk for what is dear to compute: drawn products, maps, regions.

An entry is a folder whose name is the hash of everything it was made from. It is built beside its
place and renamed into it, so that it is either whole or absent, whoever else builds it too.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from filelock import FileLock

from anomalyncd.errors import InputError


def digest(*parts: Any) -> str:
    """Hash anything that JSON can hold; the same in every process and on every machine."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True)
    return hashlib.blake2b(text.encode(), digest_size=10).hexdigest()


def digest_files(paths: Iterable[Path]) -> list[str]:
    """Hash the content of each file; a moved or copied file keeps its hash.

    Raises:
        InputError: a file cannot be read.
    """

    def hash_of(path: Path) -> str:
        try:
            with path.open("rb") as file:
                return hashlib.file_digest(file, "blake2b").hexdigest()[:20]
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from error

    with ThreadPoolExecutor() as pool:
        return list(pool.map(hash_of, paths))


class Cache:
    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)

    def entry(self, kind: str, key: Any, build: Callable[[Path], None]) -> Path:
        """The folder of `kind` and `key`; `build` fills it if it is not there yet.

        Args:
            kind: a word that starts the folder's name.
            key: all that the content depends on, as JSON.
            build: writes the content into the folder that it is given.
        """
        name = f"{kind}-{digest(kind, key)}"
        place = self.root / name
        if place.exists():
            return place
        with FileLock(self.root / f".{name}.lock"):  # who comes second finds it done
            if place.exists():
                return place
            building = self.root / f".{name}.building"
            shutil.rmtree(building, ignore_errors=True)  # of a process that was killed
            building.mkdir()
            try:
                build(building)
                building.rename(place)
            finally:
                shutil.rmtree(building, ignore_errors=True)
        return place
