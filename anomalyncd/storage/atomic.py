"""Files that are whole or absent, whatever happens while they are written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from anomalyncd.errors import InputError


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path` to write to; it takes the place of `path` at the end.

    Raises:
        InputError: the place cannot be written or is full; nothing is left behind.
    """
    draft = path.with_name(f".{path.name}.part")
    try:
        yield draft
        sync(draft)  # else a power cut may leave the name without the content
        os.replace(draft, path)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror or error}); free space or write elsewhere"
        ) from error
    finally:
        draft.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Have a file's content, or a folder's names, on the disk before anything else is done."""
    if path.is_dir() and os.name == "nt":  # which has no way to do it
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def naming(folder: Path) -> Iterator[None]:
    """Give an error of the disk the folder that is written to, where the system names nothing: a
    disk that is full is found out by a write, which knows no path.

    Raises:
        OSError: with a `filename`.
    """
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(folder)
        raise


def archive(path: Path) -> Path | None:
    """Rename a file or folder, if there is one, to make room: `seed-1` becomes `seed-1.old-1`.

    Returns:
        Its new path; None if there was none.
    """
    if not os.path.lexists(path):
        return None
    number = 1
    while os.path.lexists(aside := path.with_name(f"{path.name}.old-{number}")):
        number += 1
    path.rename(aside)
    return aside
