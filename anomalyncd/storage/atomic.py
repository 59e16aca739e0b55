"""Write files atomically: they are complete or absent, whatever happens meanwhile."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from anomalyncd.errors import InputError


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; at the end it replaces `path`.

    Raises:
        InputError: the folder cannot be written or is full; the temporary file is removed.
    """
    draft = path.with_name(f".{path.name}.part")
    try:
        yield draft
        sync(draft)  # otherwise a power cut may leave the name without the content
        os.replace(draft, path)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror or error}); free space or write elsewhere"
        ) from error
    finally:
        draft.unlink(missing_ok=True)


def copy(source: Path, target: Path) -> None:
    """Copy a file's content.

    Raises:
        InputError: as `atomic_write`.
    """
    with atomic_write(target) as draft:
        shutil.copyfile(source, draft)


def sync(path: Path) -> None:
    """Flush a file's content, or a folder's names, to the disk."""
    if path.is_dir() and os.name == "nt":  # not possible on Windows
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def naming(folder: Path) -> Iterator[None]:
    """Add `folder` as filename to disk errors that have none: on a full disk a write fails, and a
    write does not know the path.

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
    """Rename a file or folder, if it exists: `seed-1` becomes `seed-1.old-1`.

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
