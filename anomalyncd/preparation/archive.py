"""Unpacking archives of strangers: plain files only, and only into the folder that is meant."""

from __future__ import annotations

import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, BinaryIO

from anomalyncd.console import progress
from anomalyncd.errors import InputError

_CHUNK = 1 << 20
# Images hardly shrink in an archive: one that grows by more is made to fill the disk.
_MOST_GROWTH = 20
_ALWAYS_ALLOWED = 1 << 30

Opener = Callable[[], IO[bytes] | None]


def extract(archive: Path, folder: Path, *, quiet: bool) -> None:
    """Unpack a zip or a tar of any compression; hidden files (macOS adds many) are left out.

    Raises:
        InputError: the file is no archive, is damaged, or holds anything but plain files in
            folders: absolute paths, `..`, links, devices, a name twice, or far too much.
    """
    limit = max(archive.stat().st_size * _MOST_GROWTH, _ALWAYS_ALLOWED)
    title = f"unpacking {archive.name}"
    try:
        with (
            archive.open("rb") as file,
            progress(title, archive.stat().st_size // 10**6, quiet=quiet) as tell,
        ):
            for name, plain, opener in _members(file):
                place = _place(name, archive)
                if not plain:
                    raise _refused(archive, name, "a link or a device, not a plain file")
                if _is_clutter(place):
                    continue
                limit -= _write(opener, folder / place, limit)
                if limit < 0:
                    raise _refused(archive, name, "far more content than the archive's size allows")
                tell(file.tell() // 10**6, "MB")
    except FileExistsError as error:
        raise _refused(archive, Path(error.filename).name, "a name that occurs twice") from error
    except (tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError) as error:
        raise InputError(f"{archive}: damaged or incomplete ({error}); get it again") from error
    except (RuntimeError, NotImplementedError) as error:  # zipfile's: a password, a rare method
        raise InputError(f"{archive}: {error}; unpack it yourself and give the folder") from error


def _members(file: BinaryIO) -> Iterator[tuple[str, bool, Opener]]:
    """Name, whether it is a plain file, and how to open it; folders are left out."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as packed:
            for info in packed.infolist():
                if not info.is_dir():
                    kind = stat.S_IFMT(info.external_attr >> 16)  # 0 where no Unix packed it
                    yield info.filename, kind in (0, stat.S_IFREG), partial(packed.open, info)
        return
    file.seek(0)
    try:
        tar = tarfile.open(fileobj=file, mode="r:*")  # noqa: SIM115 - closed below
    except tarfile.ReadError as error:
        raise InputError(
            f"{file.name}: no zip or tar archive; expected one, or a folder"
        ) from error
    with tar:
        for member in tar:
            if not member.isdir():
                yield member.name, member.isreg(), partial(tar.extractfile, member)


def _place(name: str, archive: Path) -> PurePosixPath:
    """The member's path below the folder; some packers write backslashes."""
    place = PurePosixPath(name.replace("\\", "/"))
    if place.is_absolute() or PureWindowsPath(name).drive or ".." in place.parts:
        raise _refused(archive, name, "a path that leads out of the folder")
    return place


def _is_clutter(place: PurePosixPath) -> bool:
    return any(part.startswith(".") for part in place.parts)


def _write(opener: Opener, path: Path, limit: int) -> int:
    """Copy one member, at most just beyond the limit, and never over a file; its bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    source = opener()
    assert source is not None  # of a plain file
    with source, path.open("xb") as out:
        while written <= limit and (chunk := source.read(_CHUNK)):
            written += out.write(chunk)
    return written


def _refused(archive: Path, name: str, why: str) -> InputError:
    return InputError(
        f"{archive}: refused, since its member {name!r} is {why}; nothing was kept of it. "
        "Get the archive from its publisher"
    )
