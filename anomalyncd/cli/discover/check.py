"""All that is missing or wrong in the photographs of `anomalyncd discover`, found before torch is
loaded, and the nearest command that works."""

from __future__ import annotations

import os
import re
import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from anomalyncd.config import FEWEST_COMPARED, MAX_MEGAPIXELS
from anomalyncd.data import photographs
from anomalyncd.data.folders import entries, is_broken_link, surroundings
from anomalyncd.data.images import SUFFIXES
from anomalyncd.errors import InputError

FEWEST_WITH_GOOD = 2
SMALLEST = 32  # pixels of the shorter side
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar")
_SHOWN = 5  # names of a problem that many files share


@dataclass(frozen=True)
class Request:
    """What the user asked for."""

    photos: str
    good: str | None = None
    classes: str | int | None = None  # as typed
    labels_from_folders: bool = False
    skip_unreadable: bool = False
    settings: tuple[str, ...] = ()

    @property
    def command(self) -> str:
        """The command line that asks for the same."""
        options = [] if self.good is None else ["--good", self.good]
        options += [] if self.classes is None else ["--classes", str(self.classes)]
        options += ["--labels-from-folders"] * self.labels_from_folders
        options += ["--skip-unreadable"] * self.skip_unreadable
        return shlex.join(["anomalyncd", "discover", self.photos, *options, *self.settings])


@dataclass
class Checked:
    """What was found; `problems` must be empty for a run to start."""

    request: Request  # with paths as they can be opened
    nearest: Request  # with which the problems disappear, as far as is known
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    images: list[Path] = field(default_factory=list)
    good: list[Path] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)  # (width, height) of `images`

    @property
    def summary(self) -> str:
        """ "65 in photos, 1024 × 1024 pixels; 20 known-good ones"."""
        widths, heights = zip(*self.sizes, strict=True)
        smallest, largest = (min(widths), min(heights)), (max(widths), max(heights))
        shown = "{} × {}".format(*smallest)
        if smallest != largest:
            shown += " to {} × {}".format(*largest)
        good = f"; {len(self.good)} known-good ones" if self.good else ""
        return f"{len(self.images)} in {self.request.photos}, {shown} pixels{good}"

    def error(self) -> InputError:
        """All problems as one error, with the command."""
        text = "; ".join(self.problems)
        again = self.nearest != self.request
        return InputError(f"{text}; try: {self.nearest.command}" if again else text)


def check(
    request: Request,
    *,
    left_out: Sequence[Path] = (),
    max_megapixels: int = MAX_MEGAPIXELS,
    on_share: Callable[[int, int], None] = lambda done, total: None,
) -> Checked:
    """Find everything that would stop a discovery.

    Args:
        request: the command.
        left_out: folders of results, which are no photographs if they lie inside.
        max_megapixels: of an image.
        on_share: called with the number of images that are decoded, and of all.
    """
    found = Checked(request, request)
    classes = _classes(found)
    photos, meant = _folder(found, "PHOTOS", request.photos)
    found.request = replace(request, photos=str(photos or request.photos))
    found.nearest = replace(found.nearest, photos=str(photos or meant or request.photos))
    good = None
    if request.good is not None:
        good, meant = _folder(found, "--good", request.good)
        found.request = replace(found.request, good=str(good or request.good))
        found.nearest = replace(found.nearest, good=str(good or meant or request.good))
    if photos is not None and good is not None and os.path.samefile(photos, good):
        found.problems.append(
            f"--good {good} is PHOTOS itself; expected another folder, of photographs that are "
            "known to have no defect"
        )
        found.nearest = replace(found.nearest, good=None)
        good = None
    if photos is None or (not request.labels_from_folders and _is_a_dataset(found, photos)):
        return found
    try:
        inside = [*left_out, *([good] if good else [])]
        pile = photographs.find(photos, inside)
        found.good = photographs.find(good, left_out).images if good else []
    except InputError as error:
        found.problems.append(str(error))
        return found
    found.notes += pile.warnings()
    if good is not None and not found.good:
        found.problems.append(f"--good {good}: no images in it")
    if good is not None and _is_inside(good, photos):
        found.notes.append(f"{good} lies in PHOTOS: its photographs count as known-good only")
    _require_other_names(found, pile)
    if not pile.images:
        _explain_empty(found, pile)
        return found
    total = len(pile.images) + len(found.good)
    looked = dict(
        zip(
            [*pile.images, *found.good],
            photographs.look_at(
                [*pile.images, *found.good], max_megapixels, lambda done: on_share(done, total)
            ),
            strict=True,
        )
    )
    _require_readable(found, {path: a.problem for path, a in looked.items() if a.problem})
    found.images = [path for path in pile.images if not looked[path].problem]
    found.good = [path for path in found.good if not looked[path].problem]
    found.sizes = [(looked[path].width, looked[path].height) for path in found.images]
    _require_enough(found, classes)
    _require_different(found, [looked[path].thumbnail for path in found.images])
    _require_size(found)
    return found


def _classes(found: Checked) -> int | None:
    """The number of classes that was asked for; None if it is to be found."""
    asked = found.request.classes
    if asked is None:
        return None
    known = re.fullmatch(r"\+?\d{1,5}", str(asked))
    if known and 2 <= int(str(asked)) <= 10_000:
        return int(str(asked))
    found.problems.append(
        f"--classes {asked}: expected a whole number from 2, which counts the defect-free class "
        "too; without --classes it is estimated"
    )
    found.nearest = replace(found.nearest, classes=None)
    return None


def _folder(found: Checked, name: str, text: str) -> tuple[Path | None, Path | None]:
    """The folder of a path as typed; if it cannot be used, None and what is probably meant."""
    place, problem, meant = _opened(text, name)
    if problem:
        found.problems.append(problem)
    return (None if problem else place), meant


def _opened(text: str, name: str) -> tuple[Path, str, Path | None]:
    """A path as typed → where it is, or why it cannot be used and what is probably meant."""
    path = Path(text)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text):
        problem = f"{name} is an address ({text}); download the photographs and give their folder"
        return path, problem, Path("photographs")
    if not os.path.lexists(path):
        # A shell expands neither a ~ in quotes nor quotes within quotes.
        literal = Path(text.strip().strip("'\"“”‘’")).expanduser()
        path = literal if literal.exists() else path
    if is_broken_link(path):
        return path, f"{name} {path}: a link to a folder that is missing", None
    if path.is_file():
        return _file(path, name)
    if not path.is_dir():
        return _missing(path, name)
    if not os.access(path, os.R_OK | os.X_OK):
        problem = f"{name} {path}: cannot be read (Permission denied); make it readable: chmod"
        return path, f"{problem} -R u+rX {shlex.quote(str(path))}", None
    return path, "", None


def _file(path: Path, name: str) -> tuple[Path, str, Path | None]:
    if path.suffix.lower() in _ARCHIVES:
        folder = path.with_name(path.name.partition(".")[0] or "photographs")
        return path, f"{name} {path} is an archive; unpack it and give its folder", folder
    if path.suffix.lower() in SUFFIXES:
        return path, f"{name} {path} is one image; expected the folder of all", path.parent
    return path, f"{name} {path} is a file; expected a folder of photographs", path.parent


def _missing(path: Path, name: str) -> tuple[Path, str, Path | None]:
    """A path that leads nowhere: the deepest folder that exists, and what it holds."""
    around = surroundings(path)
    meant = around.meant
    above = around.above if str(around.above) != "." else "this folder"
    hint = f"{above} holds {around.shown}"
    if meant:
        hint = f"did you mean {meant}?" if meant.exists() else f"{hint}; did you mean {meant}?"
    return path, f"{name} {path}: no such folder; {hint}", meant


def _is_a_dataset(found: Checked, photos: Path) -> bool:
    """A folder of a public data set, with its own split, is no pile of photographs."""
    try:
        products = [photos] if _has_a_split(photos) else []
        products = products or [at for at in entries(photos) if at.is_dir() and _has_a_split(at)]
    except InputError as error:
        found.problems.append(str(error))
        return True
    if not products:
        return False
    one = products[0]
    what = "is in the layout of MVTec AD (train, test, ground_truth), not a pile of photographs"
    if one != photos:
        names = ", ".join(at.name for at in products[:_SHOWN])
        what = f"holds {len(products)} data sets ({names}); expected photographs of one product"
    found.problems.append(f"PHOTOS {photos} {what}")
    good = next((at for at in (one / "train" / "good", one / "train") if at.is_dir()), None)
    given = found.nearest.good
    found.nearest = replace(
        found.nearest, photos=str(one / "test"), good=given or (str(good) if good else None)
    )
    return True


def _has_a_split(folder: Path) -> bool:
    return (folder / "test").is_dir() and any(
        (folder / name).is_dir() for name in ("train", "ground_truth")
    )


def _is_inside(inner: Path, outer: Path) -> bool:
    return Path(os.path.realpath(inner)).is_relative_to(os.path.realpath(outer))


def _require_other_names(found: Checked, pile: photographs.Pile) -> None:
    if pairs := pile.same_names():
        first, second = pairs[0]
        more = f" ({len(pairs)} such pairs)" if len(pairs) > 1 else ""
        found.problems.append(
            f"{first} and {second.name} have the same name{more}; rename one, or, if one of them "
            "is a mask or a copy, move it elsewhere"
        )


def _explain_empty(found: Checked, pile: photographs.Pile) -> None:
    instead = photographs.listed(pile.others)
    problem = f"PHOTOS {pile.root}: no photographs; expected PNG, JPEG, BMP, TIFF or WebP files"
    if instead:
        problem += f", found {instead}"
    if {".heic", ".heif", ".gif", ".avif"} & pile.others.keys():
        problem += "; convert them: magick mogrify -format png *.*"
    if not instead:
        problem += "; the folder is empty"
    found.problems.append(problem)


def _require_readable(found: Checked, problems: dict[Path, str]) -> None:
    if not problems:
        return
    shown = [problems[path] for path in list(problems)[:_SHOWN]]
    more = len(problems) - len(shown)
    if found.request.skip_unreadable:
        found.notes.append(f"left out, since they cannot be read: {len(problems)} images")
        found.notes += shown
        if more:
            found.notes.append(f"and {more} more")
    else:
        found.problems += shown
        if more:
            found.problems.append(f"and {more} more images that cannot be read")
        found.nearest = replace(found.nearest, skip_unreadable=True)


def _require_enough(found: Checked, classes: int | None) -> None:
    count = len(found.images)
    fewest = FEWEST_WITH_GOOD if found.request.good is not None else FEWEST_COMPARED
    if count < fewest:
        more = "" if found.request.good is not None else ", or known-good ones: --good GOOD"
        plural = "s" * (count != 1)
        found.problems.append(
            f"PHOTOS {found.request.photos}: {count or 'no'} photograph{plural} that can be read; "
            f"expected at least {fewest}, better a few dozen; add photographs{more}"
        )
    elif classes is not None and classes > count // 2:
        found.problems.append(
            f"--classes {classes} for {count} photographs: expected at least two photographs for "
            f"each class, so at most {max(count // 2, 2)}; without --classes it is estimated"
        )
        found.nearest = replace(found.nearest, classes=None)


def _require_different(found: Checked, thumbnails: Sequence[bytes]) -> None:
    """Equal pictures tell nothing: each would be as normal as its copies."""
    different = Counter(thumbnails)
    if len(found.images) < 2 or len(different) == len(found.images):
        return
    copies = len(found.images) - len(different)
    if len(different) == 1:
        found.problems.append(
            f"PHOTOS {found.request.photos}: all {len(found.images)} photographs show the same "
            "picture; expected different photographs of one product"
        )
    else:
        plural = "s are copies" if copies > 1 else " is a copy"
        found.notes.append(f"{copies} photograph{plural} of another; each counts")


def _require_size(found: Checked) -> None:
    small = [p for p, size in zip(found.images, found.sizes, strict=True) if min(size) < SMALLEST]
    if not small:
        return
    index = found.images.index(small[0])
    width, height = found.sizes[index]
    what = f"{small[0]} has {width} × {height} pixels"
    if 2 * len(small) > len(found.images):
        found.problems.append(
            f"{len(small)} of {len(found.images)} photographs are too small: {what}; expected at "
            f"least {SMALLEST}, better some hundred; are these previews?"
        )
    else:
        found.notes.append(f"{len(small)} very small photographs: {what}")
