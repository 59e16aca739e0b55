"""List users' folders: files that exist but cannot be read are reported, never skipped."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
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
    around = surroundings(folder)
    if key == "category" and {"train", "test"} & set(around.folders):
        raise InputError(
            f"{folder}: no such folder, and {parent} looks like a category itself; "
            f"set dataset.path={parent.parent} category={parent.name}"
        )
    hint = f"did you mean {around.meant.name}? " if around.meant else ""
    other = ", or train without a base set: base=none" if key == "base.path" else ""
    raise InputError(
        f"{folder}: no such folder; {hint}{parent} holds {around.shown}; set {key}=…{other}"
    )


@dataclass(frozen=True)
class Surroundings:
    """What there is in place of a folder that does not exist."""

    above: Path  # the deepest folder on its path that exists
    folders: tuple[str, ...]  # the folders in it, sorted
    meant: Path | None  # the path with the most similar of these names

    @property
    def shown(self) -> str:
        """The folders, for a message."""
        some, more = ", ".join(self.folders[:8]), len(self.folders) - 8
        return (some + (f" and {more} more" if more > 0 else "")) or "no folders"


def surroundings(missing: Path) -> Surroundings:
    """What there is in place of a folder that does not exist; folders that cannot be listed count
    as empty."""
    above, wanted = missing.parent, missing.name
    while not above.is_dir() and above != above.parent:
        above, wanted = above.parent, above.name
    try:
        folders = tuple(entry.name for entry in entries(above) if entry.is_dir())
    except InputError:
        folders = ()
    names = {name.lower(): name for name in folders}
    near = get_close_matches(wanted.lower(), names, n=1)
    rest = missing.relative_to(above).parts[1:] if above != missing else ()
    return Surroundings(above, folders, above.joinpath(names[near[0]], *rest) if near else None)


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
