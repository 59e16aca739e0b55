"""Unpack archives from untrusted sources: plain files only, and only into the given folder."""

from __future__ import annotations

import bz2
import gzip
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, BinaryIO, cast

from anomalyncd.errors import InputError
from anomalyncd.runtime.console import progress

_CHUNK = 1 << 20
# Images are hardly compressed in an archive: one that grows by more was made to fill the disk.
_MOST_GROWTH = 20
_ALWAYS_ALLOWED = 1 << 30
_DECOMPRESSORS = ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\x00", lzma.open))
_DAMAGED = (
    *(tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile),
    *(lzma.LZMAError, zlib.error, EOFError),
)

Opener = Callable[[], IO[bytes] | None]


def extract(archive: Path, folder: Path, *, quiet: bool) -> None:
    """Unpack a zip or a tar of any compression; hidden files (macOS adds many) are left out.

    The archive is read to its very end: only there a truncated one is noticed, and checksums are
    compared.

    Raises:
        InputError: the file is no archive, is damaged, or holds anything but plain files in
            folders: absolute paths, `..`, links, devices, duplicate names, or far too much data.
        OSError: the archive cannot be read, or its content cannot be written.
    """
    limit = max(archive.stat().st_size * _MOST_GROWTH, _ALWAYS_ALLOWED)
    title = f"unpacking {archive.name}"
    try:
        with (
            archive.open("rb") as file,
            progress(title, archive.stat().st_size // 10**6, quiet=quiet) as report,
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
                report(file.tell() // 10**6, "MB")
    except FileExistsError as error:
        raise _refused(archive, Path(error.filename).name, "a duplicate of another name") from error
    except _DAMAGED as error:
        raise _damaged(archive, error) from error
    except OSError as error:
        if error.errno is not None:
            raise  # an error of the disk, not of the archive
        raise _damaged(archive, error) from error
    except (RuntimeError, NotImplementedError) as error:  # from zipfile: a password, a rare method
        raise InputError(f"{archive}: {error}; unpack it yourself and pass the folder") from error


def _members(file: BinaryIO) -> Iterator[tuple[str, bool, Opener]]:
    """Name, whether it is a plain file, and how to open it; folders are left out."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as packed:
            for info in packed.infolist():
                if not info.is_dir():
                    kind = stat.S_IFMT(info.external_attr >> 16)  # 0 if it was not packed on Unix
                    yield info.filename, kind in (0, stat.S_IFREG), partial(packed.open, info)
        return
    file.seek(0)
    content = _LastRead(_decompressed(file))
    try:
        tar = tarfile.open(fileobj=cast(IO[bytes], content), mode="r:")  # noqa: SIM115 - closed below
    except tarfile.ReadError as error:
        raise InputError(
            f"{file.name}: no zip or tar archive; expected one, or a folder"
        ) from error
    with tar:
        for member in tar:
            if not member.isdir():
                yield member.name, member.isreg(), partial(tar.extractfile, member)
    # At the end of the file, or at a header it cannot read, tarfile assumes the archive's end.
    if content.last != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("it ends, or cannot be read further, after a complete member")
    padding = 0
    while chunk := content.read(_CHUNK):  # a decompressor compares checksums at the end of its data
        padding += len(chunk)
        if padding > _ALWAYS_ALLOWED:
            raise tarfile.ReadError(f"more than {_ALWAYS_ALLOWED:,} bytes after its end")


def _decompressed(file: BinaryIO) -> IO[bytes]:
    start = file.read(6)
    file.seek(0)
    for begin, decompress in _DECOMPRESSORS:
        if start.startswith(begin):
            return cast(IO[bytes], decompress(file))
    return file


class _LastRead:
    """A stream that remembers what the last read returned."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.last = b""
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int = -1) -> bytes:
        self.last = self._stream.read(size)
        return self.last


def _place(name: str, archive: Path) -> PurePosixPath:
    """The member's path below the folder; some packers write backslashes."""
    place = PurePosixPath(name.replace("\\", "/"))
    if place.is_absolute() or PureWindowsPath(name).drive or ".." in place.parts:
        raise _refused(archive, name, "a path that leads out of the folder")
    return place


def _is_clutter(place: PurePosixPath) -> bool:
    return any(part.startswith(".") for part in place.parts)


def _write(opener: Opener, path: Path, limit: int) -> int:
    """Copy one member, stopping just beyond the limit and never over a file; return its bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    source = opener()
    assert source is not None  # None only for members that are no plain files
    with source, path.open("xb") as out:
        while written <= limit and (chunk := source.read(_CHUNK)):
            written += out.write(chunk)
    return written


def _damaged(archive: Path, error: Exception) -> InputError:
    return InputError(f"{archive}: damaged or incomplete ({error}); download it again")


def _refused(archive: Path, name: str, why: str) -> InputError:
    return InputError(
        f"{archive}: refused, because its member {name!r} is {why}; nothing of it was kept. "
        "Get the archive from its publisher"
    )
