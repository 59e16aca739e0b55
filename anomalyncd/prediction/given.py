"""What a command gives to classify: files, folders, patterns, videos, or a list of paths."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from anomalyncd.data import photographs
from anomalyncd.data.folders import existing
from anomalyncd.data.images import SUFFIXES
from anomalyncd.errors import InputError

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv")
STANDARD_INPUT = "-"


@dataclass(frozen=True)
class Given:
    """A photograph or a video, as it was given."""

    id: str  # unique among those given: the path below their common folder, without the suffix
    path: Path

    @property
    def is_video(self) -> bool:
        return self.path.suffix.lower() in VIDEO_SUFFIXES

    @property
    def key(self) -> str:
        """The same for the same file, wherever the command is called."""
        return os.path.abspath(self.path)

    def frame_key(self, number: int) -> str:
        """Likewise for a frame of a video."""
        return f"{self.key}#{number}"


@dataclass(frozen=True)
class Found:
    """All that a command gives."""

    files: tuple[Given, ...]
    problems: dict[str, str]  # why a line of the list on standard input cannot be used
    warnings: tuple[str, ...]


def find(words: Sequence[str], standard_input: BinaryIO, left_out: Iterable[Path] = ()) -> Found:
    """Find the files that a command names, each once, in the order of the words.

    Args:
        words: files, folders (read at any depth), patterns such as `day*/*.png`, videos, or `-` for
            a list on standard input, one path in a line.
        standard_input: where that list is read from.
        left_out: folders that are not read if they lie inside, such as that of the results.

    Raises:
        InputError: a word names nothing, or there is no photograph at all.
    """
    paths: list[Path] = []
    problems: dict[str, str] = {}
    warnings: list[str] = []
    roots: list[Path] = []  # the folder whose content each word names
    for word in words:
        if word == STANDARD_INPUT:
            for line in _lines(standard_input):
                try:
                    _add(Path(line), left_out, paths, roots, warnings)
                except InputError as error:
                    problems[line] = str(error)
        else:
            for path in _matching(word):
                _add(path, left_out, paths, roots, warnings)
    unique = list({os.path.abspath(path): path for path in paths}.values())
    if not unique and not problems:
        expected = ", ".join(SUFFIXES)
        raise InputError(f"{words[0]}: no images; expected files ending in {expected}")
    return Found(_named(unique, roots), problems, tuple(warnings))


def _lines(standard_input: BinaryIO) -> list[str]:
    content = standard_input.read()
    lines = content.split(b"\0") if b"\0" in content else content.splitlines()
    return [os.fsdecode(line) for line in lines if line.strip()]


def _matching(word: str) -> list[Path]:
    """The paths of a word: itself if it exists, or those that match it as a pattern."""
    if os.path.lexists(word) or not glob.has_magic(word):
        return [Path(word)]
    found = sorted(glob.glob(word, recursive=True))
    if not found:
        raise InputError(f"{word}: no file matches this pattern; expected photographs or folders")
    return [Path(path) for path in found]


def _add(
    path: Path,
    left_out: Iterable[Path],
    paths: list[Path],
    roots: list[Path],
    warnings: list[str],
) -> None:
    if path.is_dir():
        pile = photographs.find(path, left_out)
        videos = [] if pile.images else _videos_in(path)
        if not pile.images and not videos:
            shown = f"; found {photographs.listed(pile.others)}" if pile.others else ""
            raise InputError(
                f"{path}: no images; expected files ending in {', '.join(SUFFIXES)}{shown}"
            )
        paths += pile.images or videos
        warnings += pile.warnings()
        roots.append(path)
    elif path.exists():
        if path.suffix.lower() not in (*SUFFIXES, *VIDEO_SUFFIXES):
            raise InputError(
                f"{path}: neither a photograph nor a video; expected a file ending in "
                f"{', '.join((*SUFFIXES, *VIDEO_SUFFIXES))}"
            )
        paths.append(path)
        roots.append(path.parent)
    else:
        existing(path, "path")  # its error names what is there instead


def _videos_in(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in VIDEO_SUFFIXES and path.name[0] != "."
    )


def _named(paths: Sequence[Path], roots: Sequence[Path]) -> tuple[Given, ...]:
    """Ids: paths below the folder that all words have in common; with the suffix if two differ only
    in it."""
    whole = [Path(os.path.abspath(path)) for path in paths]
    try:
        common = Path(os.path.commonpath([os.path.abspath(root) for root in roots]))
    except ValueError:  # none, or on several drives
        common = Path("/")
    below = [
        path.relative_to(common if path.is_relative_to(common) else path.anchor) for path in whole
    ]
    count = Counter(path.with_suffix("") for path in below)
    names = [(path if count[path.with_suffix("")] > 1 else path.with_suffix("")) for path in below]
    return tuple(Given(name.as_posix(), path) for name, path in zip(names, paths, strict=True))
