"""List users' folders: files that exist but cannot be read are reported, never skipped."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from itertools import islice
from pathlib import Path, PurePath

from anomalyncd.data.images import SUFFIXES
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


def first_images_below(folder: Path) -> Path | None:
    """The first folder below that directly contains images; hidden folders are ignored."""
    # The limit keeps a path such as / from being searched completely.
    for place, below, files in islice(os.walk(folder), 10_000):
        below[:] = sorted(name for name in below if name[0] != ".")
        shown = (PurePath(name) for name in files if name[0] != ".")
        if place != str(folder) and any(name.suffix.lower() in SUFFIXES for name in shown):
            return Path(place)
    return None


def files_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [path for path in entries(folder) if path.is_file()]


def existing(folder: Path, key: str) -> Path:
    """The folder; if it does not exist, the error names the folders that do."""
    if folder.is_dir():
        return folder
    if folder.is_file():
        raise InputError(f"{folder} is a file; expected its folder: {key}={folder.parent}")
    require_targets([folder])
    parent = folder.parent
    if not parent.is_dir():
        raise InputError(f"{folder}: no such folder, nor is there {parent}; set {key}=…")
    found = (path for path in parent.iterdir() if path.is_dir() and path.name[0] != ".")
    beside = sorted(path.name for path in found)
    if key == "category" and {"train", "test"} & set(beside):
        raise InputError(
            f"{folder}: no such folder, and {parent} looks like a category itself; "
            f"set dataset.path={parent.parent} category={parent.name}"
        )
    same = {name.lower(): name for name in beside}
    near = get_close_matches(folder.name.lower(), same, n=1)
    hint = f"did you mean {same[near[0]]}? " if near else ""
    shown = ", ".join(beside[:8]) + (f" and {len(beside) - 8} more" if len(beside) > 8 else "")
    other = ", or train without a base set: base=none" if key == "base.path" else ""
    raise InputError(
        f"{folder}: no such folder; {hint}{parent} holds {shown or 'no folders'}; "
        f"set {key}=…{other}"
    )


def images_in(
    folder: Path, stem_ends: str = "", suffixes: Sequence[str] = SUFFIXES
) -> dict[str, Path]:
    """Image files directly in a folder, by stem, sorted; a common ending of stems is removed."""
    if not folder.is_dir():
        require_targets((folder.parent, folder))
        return {}
    found: dict[str, Path] = {}
    for path in entries(folder):
        if path.suffix.lower() in suffixes and path.is_file():
            stem = path.stem.removesuffix(stem_ends)
            if stem in found:
                raise InputError(same_name(found[stem], path))
            found[stem] = path
    return found


def same_name(first: Path, second: Path) -> str:
    return (
        f"{first} and {second.name} have the same name; rename one, since maps and masks are "
        "matched by name"
    )
