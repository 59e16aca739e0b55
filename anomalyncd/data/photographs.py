"""A pile of photographs: every image at any depth of a folder, and which of them can be read."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from anomalyncd.data.folders import and_more, entries
from anomalyncd.data.images import OTHER_SUFFIXES, SUFFIXES, open_image, pixels_of
from anomalyncd.errors import InputError
from anomalyncd.storage.cache import digest_files

MASK_FOLDERS = ("ground_truth", "masks", "mask")  # truth masks are no photographs
SYSTEM_FOLDERS = ("__MACOSX", "$RECYCLE.BIN", "System Volume Information", "@eaDir")
MOST = 100_000  # photographs: more are a mistake, such as the path /
_THUMBNAIL = 32  # pixels: JPEGs are decoded at about this size, which finds truncated ones too


@dataclass
class Pile:
    """The photographs of a folder, sorted, and what was not read."""

    root: Path
    images: list[Path] = field(default_factory=list)
    masks: Counter[Path] = field(default_factory=Counter)  # images in folders of masks
    others: Counter[str] = field(default_factory=Counter)  # files by suffix, other than images

    def name(self, image: Path) -> str:
        """Its path below the folder without the suffix: the sample's id."""
        return image.relative_to(self.root).with_suffix("").as_posix()

    def same_names(self) -> list[tuple[Path, Path]]:
        """Pairs that differ only in the suffix, which maps and masks could not be matched to."""
        known: dict[str, Path] = {}
        pairs = []
        for image in self.images:
            first = known.setdefault(self.name(image), image)
            if first != image:
                pairs.append((first, image))
        return pairs

    def warnings(self) -> list[str]:
        """What a user would expect to be read and is not."""
        found = [
            f"{folder}: {count} image{'s' * (count > 1)} left out, since a folder of this name "
            "holds masks; rename it to use them as photographs"
            for folder, count in self.masks.items()
        ]
        unsupported = {suffix: self.others[suffix] for suffix in OTHER_SUFFIXES}
        if shown := listed(Counter({s: count for s, count in unsupported.items() if count})):
            found.append(f"{self.root}: {shown} not read; convert them to PNG or JPEG to use them")
        return found


def find(root: Path, left_out: Iterable[Path] = (), names_left_out: Sequence[str] = ()) -> Pile:
    """Find all images at any depth; hidden files and those of operating systems are ignored.

    Args:
        root: the folder.
        left_out: folders that are not read if they lie inside, such as that of the results.
        names_left_out: likewise, wherever a folder has one of these names.

    Raises:
        InputError: a folder cannot be read, a link is broken, or there are too many images.
    """
    pile = Pile(root)
    known = {os.path.realpath(folder) for folder in left_out} - {os.path.realpath(root)}
    ignored = {*SYSTEM_FOLDERS, *names_left_out}

    def read(folder: Path) -> None:
        if (place := os.path.realpath(folder)) in known:
            return
        known.add(place)  # a link to a folder above would lead here again
        for path in entries(folder):
            if path.is_dir():
                if path.name in MASK_FOLDERS:
                    count = len(find(path).images)
                    pile.masks += Counter({path: count})
                elif path.name not in ignored:
                    read(path)
            elif path.suffix.lower() in SUFFIXES:
                pile.images.append(path)
            else:
                pile.others[path.suffix.lower()] += 1
        if len(pile.images) > MOST:
            raise InputError(
                f"{root}: more than {MOST:,} images; expected the photographs of one product"
            )

    read(root)
    pile.images.sort()
    return pile


class Looked(NamedTuple):
    """What decoding a file has shown."""

    problem: str  # why it cannot be used; "" if it can
    width: int = 0
    height: int = 0
    thumbnail: bytes = b""  # equal for equal pictures


def look_at(
    images: Sequence[Path],
    max_megapixels: int,
    on_share: Callable[[int], None] = lambda done: None,
) -> list[Looked]:
    """Decode every image, as a run will; once in a process for the same content.

    Args:
        images: files with a suffix of an image.
        max_megapixels: the most that may be decoded.
        on_share: called with the number that is done.
    """
    looked = []
    with ThreadPoolExecutor() as pool:
        for done, found in enumerate(
            pool.map(_look_at, images, [max_megapixels] * len(images)), start=1
        ):
            looked.append(found)
            on_share(done)
    return looked


def unreadable(images: Sequence[Path], max_megapixels: int) -> dict[Path, str]:
    """Why images cannot be read, by path; those that can are not in it."""
    looked = look_at(images, max_megapixels)
    pairs = zip(images, looked, strict=True)
    return {image: found.problem for image, found in pairs if found.problem}


def unreadable_warnings(problems: dict[Path, str]) -> tuple[str, ...]:
    """One line on the images that were left out; none if there are none."""
    if not problems:
        return ()
    paths = list(problems)
    return (f"{problems[paths[0]]}{and_more(paths, 'image')}: left out, as asked",)


def listed(suffixes: Counter[str]) -> str:
    """ "12 .heic files and 1 .gif file", the most frequent three."""
    shown = [
        f"{count} {suffix or 'suffixless'} file{'s' * (count > 1)}"
        for suffix, count in suffixes.most_common(3)
    ]
    return ", ".join(shown)


def _look_at(path: Path, max_megapixels: int) -> Looked:
    try:
        (content,) = digest_files([path])
        return _decoded(path, content, max_megapixels)
    except InputError as error:
        return Looked(str(error))


@cache
def _decoded(path: Path, content: str, max_megapixels: int) -> Looked:
    try:
        with open_image(path, max_megapixels) as image:
            width, height = image.size
            image.draft(None, (_THUMBNAIL, _THUMBNAIL))
            pixels = Image.fromarray(pixels_of(image, path))
    except InputError as error:
        return Looked(str(error))
    small = np.asarray(pixels.resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BOX))
    return Looked("", width, height, small.tobytes())
