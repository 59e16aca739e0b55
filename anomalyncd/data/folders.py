"""List users' folders: files that exist but cannot be read are reported, never skipped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from anomalyncd.errors import InputError


def entries(folder: Path) -> list[Path]:
    """Everything directly in a folder except hidden files, sorted.

    Raises:
        InputError: the folder cannot be read, or holds a broken link (as in a checkout of git-annex
            or DVC without the content).
    """
    with readable_inputs():
        found = sorted(path for path in folder.iterdir() if path.name[0] != ".")
        require_targets(found)
    return found


def subfolders(folder: Path) -> list[Path]:
    """The folders directly in a folder except hidden ones, sorted.

    Raises:
        InputError: as in `entries`.
    """
    found = entries(folder)
    with readable_inputs():
        return [path for path in found if path.is_dir()]


def require_targets(paths: Iterable[Path]) -> None:
    """Check that no path is a broken link.

    Raises:
        InputError: it names the first broken link, and the number of others.
    """
    broken = [path for path in paths if is_broken_link(path)]
    if broken:
        raise InputError(
            f"{broken[0]}{and_more(broken, 'link')}: a link to a file that is missing; fetch the "
            "files behind these links (git annex get, dvc pull) or remove the links"
        )


def is_broken_link(path: Path) -> bool:
    """Whether it is a link to a missing file, or to itself."""
    return path.is_symlink() and not path.exists()


def and_more(paths: Sequence[Path], noun: str) -> str:
    """The number of further ones, for a message: "", " (and 1 more link)", …"""
    rest = len(paths) - 1
    return f" (and {rest} more {noun}{'s' * (rest > 1)})" if rest else ""


@contextmanager
def readable_inputs() -> Iterator[None]:
    """Report an input that cannot be read; an `OSError` alone would not say whether reading or
    writing failed.

    Raises:
        InputError: instead of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{error.filename}: cannot be read ({error.strerror}); make it readable"
        ) from error
