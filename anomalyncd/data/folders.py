"""Listing folders of others: what should be there and cannot be read is reported, never dropped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from anomalyncd.errors import InputError


def entries(folder: Path) -> list[Path]:
    """Everything right in a folder but hidden files, sorted.

    Raises:
        InputError: the folder cannot be read, or a link in it leads nowhere (as in a checkout of
            git-annex or DVC whose content was not fetched).
    """
    with readable_inputs():
        found = sorted(path for path in folder.iterdir() if path.name[0] != ".")
        require_targets(found)
    return found


def subfolders(folder: Path) -> list[Path]:
    """The folders right in a folder but hidden ones, sorted.

    Raises:
        InputError: as `entries`.
    """
    found = entries(folder)
    with readable_inputs():
        return [path for path in found if path.is_dir()]


def require_targets(paths: Iterable[Path]) -> None:
    """Check that no path is a link to nothing, or to itself.

    Raises:
        InputError: names the first that is, and how many more there are.
    """
    broken = [path for path in paths if is_broken_link(path)]
    if broken:
        raise InputError(
            f"{broken[0]}{and_more(broken, 'link')}: a link to a file that is missing; fetch the "
            "files behind these links (git annex get, dvc pull) or remove the links"
        )


def is_broken_link(path: Path) -> bool:
    """It is a link that leads nowhere, or round in a circle."""
    return path.is_symlink() and not path.exists()


def and_more(paths: Sequence[Path], noun: str) -> str:
    """How many there are beside the first, for a message: "", " (and 1 more link)", …"""
    rest = len(paths) - 1
    return f" (and {rest} more {noun}{'s' * (rest > 1)})" if rest else ""


@contextmanager
def readable_inputs() -> Iterator[None]:
    """Report an input that the system does not let us read as such: what `OSError` says alone
    reads as if it were the run that could not be written.

    Raises:
        InputError: instead of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{error.filename}: cannot be read ({error.strerror}); make it readable"
        ) from error
