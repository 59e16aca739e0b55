"""Predictions of new photographs on disk: tables, a page and a line for each image as it comes.

Nothing here loads torch before it is needed: photographs that have been classified are recognised
at once.
"""

from __future__ import annotations

import io
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from anomalyncd.config import PredictConfig
from anomalyncd.decisions import naming
from anomalyncd.detectors.files import FilesDetector
from anomalyncd.errors import InputError
from anomalyncd.prediction import given
from anomalyncd.prediction.examiner import files_of, given_maps
from anomalyncd.prediction.given import Given
from anomalyncd.prediction.journal import RECORDS, VERSION, Journal, Record, Stamp
from anomalyncd.runtime import console
from anomalyncd.storage.atomic import archive
from anomalyncd.storage.cache import digest_files
from anomalyncd.storage.run_folder import hold
from anomalyncd.types import VERDICTS

if TYPE_CHECKING:
    from anomalyncd.prediction.examiner import Examiner
    from anomalyncd.prediction.stream import Photograph

TABLES = ("predictions.csv", "regions.csv")
UNUSABLE = "unreadable.csv"  # photographs that could not be classified, and why
PAGE = "report.html"
RESULTS = (*TABLES, UNUSABLE, PAGE)
OVERLAYS = "overlays"
_BUSY = "another process writes predictions there; wait for it, or set output=… elsewhere"

DEFECT = "defect"  # of fail_on: the maps show something, and the class is not `good`

OnRecord = Callable[[Record], None]
Open = Callable[[PredictConfig], "Examiner"]


@dataclass
class Predicted:
    """What a prediction has found."""

    folder: Path
    new: int = 0  # images that this call has classified
    known: int = 0  # images that an earlier one had
    class_names: tuple[str, ...] = ()  # of the run
    counts: Counter[str] = field(default_factory=Counter)  # images by the name of their class
    defects: int = 0  # images in which the maps show something, and whose class is not `good`
    problems: dict[str, str] = field(default_factory=dict)  # by photograph: why it was left out

    def count(self, record: Record) -> None:
        """Count an image."""
        self.counts[record["class_name"]] += 1
        self.defects += bool(record["main_elements"]) and record["class_name"] != "good"

    def found(self, kinds: Sequence[str]) -> list[str]:
        """Which of the kinds of `PredictConfig.fail_on` there are, each with its number of images.

        Raises:
            InputError: there is no such class.
        """
        names = dict.fromkeys(_class_named(kind, self.class_names) for kind in kinds)
        counts = {**self.counts, DEFECT: self.defects}
        return [f"{name}: {counts[name]}" for name in names if counts.get(name)]


def _class_named(kind: str, names: Sequence[str]) -> str:
    known = (*names, *VERDICTS.values(), DEFECT)
    if kind not in known and kind.isdecimal() and int(kind) < len(names):
        return names[int(kind)]
    if kind not in known:
        raise InputError(f"fail_on={kind}: no such class; expected {', '.join(known)}")
    return kind


def predict(config: PredictConfig, on_record: OnRecord = lambda record: None) -> Path:
    """Classify new photographs; the folder of their tables. As `predict_all`."""
    return predict_all(config, on_record).folder


def _of_run(config: PredictConfig) -> Examiner:
    from anomalyncd.prediction.of_run import OfRun  # loads torch

    return OfRun(config)


def predict_all(
    config: PredictConfig,
    on_record: OnRecord = lambda record: None,
    opened: Open = _of_run,
) -> Predicted:
    """Classify new photographs, and write predictions.csv, regions.csv and report.html.

    A photograph that was classified before, and has still the same size and time, is not classified
    again: the same command resumes after an interruption, and adds photographs that are new.

    Args:
        config: the run, the photographs and where to write.
        on_record: called with the record of each image as it comes, known ones too.
        opened: opens what classifies, when there is something new.

    Returns:
        The folder, and what was found. Photographs that cannot be used are listed in it.

    Raises:
        InputError: the run is not finished, none of the photographs or maps can be used, or the
            output folder holds predictions of other photographs.
        OSError: the disk is full; what was classified before is kept.
    """
    words = config.path if isinstance(config.path, list) else [config.path]
    model = files_of(config.run)
    # Results inside the photographs' folder, such as overlays, are no photographs.
    left_out = [Path(config.output)] if config.output else []
    listed = sys.stdin.buffer if given.STANDARD_INPUT in words else io.BytesIO()
    found = given.find(words, listed, left_out)
    maps = given_maps(config)
    settings: Record = {
        "kind": "settings",
        "version": VERSION,
        "run": " ".join(digest_files(path for path in model if path.is_file())) or None,
        "maps": maps and os.path.abspath(maps.root),
        "unknown_share": config.unknown_share,
    }
    run = Path(config.run)
    if run.is_dir() and (named := naming.fingerprint(run)):
        settings["names"] = named
    output = _place(config, found, settings)
    with hold(output, _BUSY, "set output=… elsewhere"):
        journal = _free(output, found, settings, config.every)
        return _continue(config, found, maps, settings, journal, on_record, opened)


def _place(config: PredictConfig, found: given.Found, settings: Record) -> Path:
    """The folder that was asked for; else the first one in the run that is free, or is of these
    photographs."""
    if config.output:
        return Path(config.output)
    number = 1
    while True:
        place = Path(config.run, "predictions" + (f"-{number}" if number > 1 else ""))
        if _occupied(place, found, settings, config.every) is None:
            return place
        number += 1


def _free(output: Path, found: given.Found, settings: Record, every: int) -> Journal:
    """The journal of a folder that may be written to.

    Raises:
        InputError: it may not.
    """
    if reason := _occupied(output, found, settings, every):
        raise InputError(reason)
    return Journal(output)


def _occupied(output: Path, found: given.Found, settings: Record, every: int) -> str | None:
    """Why a folder cannot take these predictions; None if it can."""
    other = "set output=… to another folder"
    if output.exists() and not output.is_dir():
        return f"{output} is not a folder; set output=… to another path"
    journal = Journal(output)
    if journal.settings is None:
        both = all((output / name).exists() for name in TABLES)
        return f"{output / TABLES[0]} exists already; {other}" if both else None
    if journal.settings != settings:
        return (
            f"{output / RECORDS}: made with another run, other maps, other names in its review, or "
            f"another unknown_share; {other}"
        )
    files = {file.key: file for file in found.files}
    strangers = [key for key in journal.keys if not _is_given(key, files, every)]
    if strangers:
        return (
            f"{output / RECORDS}: holds {len(strangers)} photographs that are not among these "
            f"({strangers[0]}); {other}"
        )
    for file in found.files:
        if journal.key_of.get(file.id, file.key) != file.key:
            return (
                f"{file.path}: would be called {file.id} in the tables of {output}, as "
                f"{journal.key_of[file.id]} is; {other}"
            )
    return None


def _is_given(key: str, files: Mapping[str, Given], every: int) -> bool:
    if key in files:
        return True
    video, _, number = key.rpartition("#")
    is_frame = video in files and files[video].is_video and number.isdecimal()
    return is_frame and int(number) % every == 0


@dataclass
class _Work:
    """One call: what it is given, what is known, and what it finds."""

    config: PredictConfig
    journal: Journal
    files: list[Given]
    stamps: dict[str, Stamp]  # by key
    result: Predicted
    on_record: OnRecord

    def take(self, record: Record) -> None:
        """Count a record and pass it on."""
        self.result.count(record)
        self.on_record(record)

    def is_done(self, file: Given) -> bool:
        stamp = self.stamps[file.key]
        if file.is_video:
            return self.journal.frames_of(file.key, self.config.every, stamp) is not None
        return self.journal.has(file.key, stamp)

    def keys(self) -> list[str]:
        """Of the images that have been classified, in the order in which they were given."""
        frames: dict[str, list[int]] = {}
        for key in self.journal.keys:
            video, _, number = key.rpartition("#")
            if number.isdecimal() and int(number) % self.config.every == 0:
                frames.setdefault(video, []).append(int(number))
        keys: list[tuple[Given, str]] = []
        for file in self.files:
            numbers = sorted(frames.get(file.key, ())) if file.is_video else ()
            keys += [(file, file.frame_key(number)) for number in numbers]
            if not file.is_video:
                keys.append((file, file.key))
        return [key for file, key in keys if self.journal.has(key, self.stamps[file.key])]


def _continue(
    config: PredictConfig,
    found: given.Found,
    maps: FilesDetector | None,
    settings: Record,
    journal: Journal,
    on_record: OnRecord,
    opened: Open,
) -> Predicted:
    """Classify what is new, then write the tables if anything has changed."""
    result = Predicted(journal.folder, problems=dict(found.problems))
    work = _Work(config, journal, [], {}, result, on_record)
    for file in found.files:
        try:
            work.stamps[file.key] = Stamp.of(file.path, _map_of(file, maps) if maps else None)
            work.files.append(file)
        except OSError as error:
            reason = f"{file.path}: cannot be read ({error.strerror}); make it readable"
            result.problems[str(file.path)] = reason
    waiting = [file for file in work.files if not work.is_done(file)]
    known = work.keys()
    for record in journal.read(known):
        result.known += 1
        work.take(record)
    if journal.class_names and journal.is_finished and not waiting and not result.problems:
        result.class_names = journal.class_names
        if _digests(journal.folder) == journal.written:
            return result
    for warning in found.warnings:
        console.say(f"warning: {warning}")
    _classify(work, settings, waiting, opened)
    return result


def _map_of(file: Given, maps: FilesDetector) -> Path | None:
    """The anomaly map of a photograph; of a video, the one of its frames that was made last."""
    folder = maps.root / file.id
    if not file.is_video or not folder.is_dir():
        return maps.find(file.id)
    return max(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns, default=None)


def _digests(folder: Path) -> dict[str, str]:
    present = [name for name in RESULTS if (folder / name).is_file()]
    return dict(zip(present, digest_files(folder / name for name in present), strict=True))


def _classify(work: _Work, settings: Record, waiting: Sequence[Given], opened: Open) -> None:
    from anomalyncd.prediction import page, stream  # nothing new needs neither

    config, journal, result = work.config, work.journal, work.result
    examiner = opened(config)
    result.class_names = examiner.class_names
    result.found(config.fail_on)  # a wrong name is reported now, not after the last photograph
    journal.truncate()  # also if only the tables are missing: `finish` appends a line
    if waiting:
        overlays = journal.folder / OVERLAYS if config.overlays else None
        shown = Counter(tile["class_name"] for tile in journal.tiles())
        working = stream.Stream(examiner, config.max_megapixels, overlays, shown, _warn)
        with (
            closing(working),
            console.steps("Photographs", quiet=config.jsonl or not waiting) as step,
        ):
            for group in working.run(_photographs(work, waiting)):
                done = [each for each in group if isinstance(each, stream.Done)]
                failed = [each for each in group if isinstance(each, stream.Unusable)]
                result.problems.update((each.name, each.problem) for each in failed)
                if done:
                    first = [] if journal.settings else [settings]
                    tiles = [tile for each in done for tile in each.tiles]
                    journal.append([*first, *(each.record for each in done)], tiles)
                for each in done:
                    result.new += 1
                    work.take(each.record)
                step(result.new + len(result.problems), max(len(waiting), result.new))
    if journal.settings is None:  # nothing could be classified: most likely for one reason
        problems = list(result.problems.values())
        more = f" (and {len(problems) - 1} more photographs)" if len(problems) > 1 else ""
        raise InputError(f"{problems[0]}{more}")
    keys = work.keys()
    drafts = journal.folder / ".writing"
    drafts.mkdir(exist_ok=True)
    page.write_tables(drafts, journal.read(keys), journal.read(keys), result.problems)
    page.write_page(drafts / PAGE, config.run, journal, keys, examiner, result.problems)
    for name in RESULTS:
        _install(drafts / name, journal.folder / name, journal.written.get(name))
    drafts.rmdir()
    journal.finish(_digests(journal.folder), examiner.class_names)


def _photographs(work: _Work, waiting: Sequence[Given]) -> Iterator[Photograph]:
    from anomalyncd.prediction.stream import Photograph, frames

    for file in waiting:
        stamp = work.stamps[file.key]
        if not file.is_video:
            yield Photograph(file.id, str(file.path), file.key, stamp, file.path)
            continue
        number = 0
        try:
            for photograph in frames(file, work.config.every, stamp, work.config.max_megapixels):
                number += 1
                if not work.journal.has(photograph.key, stamp):
                    yield photograph
        except InputError as error:
            work.result.problems[str(file.path)] = str(error)
        else:
            work.journal.video(file.key, stamp, work.config.every, number)


def _warn(text: str) -> None:
    console.say(f"warning: {text}")


def _install(draft: Path, place: Path, written: str | None) -> None:
    """Give a result its name; a file there is renamed if somebody has changed it."""
    if place.exists():
        old, new = digest_files((place, draft))
        if old not in (new, written):
            archive(place)
    os.replace(draft, place)
