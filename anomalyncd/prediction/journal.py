"""What a prediction has found so far, on disk: one line of JSON for each image, as they come.

A process that is killed, or a full disk, loses at most the last lines. The tables and the page are
made of these lines, so they are the same whether the command was interrupted or not.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from anomalyncd.errors import InputError
from anomalyncd.storage.atomic import naming

RECORDS = "predictions.jsonl"
TILES = ".tiles.jsonl"  # pictures of regions for the page
VERSION = 1
# What the tables and the page read of the records of an image and of its regions.
_FOUND = {"class_id": int, "class_name": str, "confidence": float, "anomaly_score": float}
_IMAGE = {
    **_FOUND,
    **{"id": str, "image": str, "main_elements": int, "threshold": float, "regions": list},
}
_REGION = {**_FOUND, "box": list, "area": int}

Record = dict[str, Any]


@dataclass(frozen=True)
class Stamp:
    """What a file is recognised by: another size or time means another photograph."""

    size: int  # bytes
    modified: int  # ns
    map_modified: int = 0  # ns; of the anomaly map's file; 0: there is none

    @classmethod
    def of(cls, path: Path, map_path: Path | None = None) -> Stamp:
        """Raises: OSError: a file is gone or cannot be read."""
        found = path.stat()
        return cls(found.st_size, found.st_mtime_ns, map_path.stat().st_mtime_ns if map_path else 0)

    def allows(self, recorded: Stamp) -> bool:
        """Whether what was recorded still holds; a map that has been removed changes nothing."""
        same_map = self.map_modified in (0, recorded.map_modified)
        return same_map and (self.size, self.modified) == (recorded.size, recorded.modified)


class Journal:
    """The records of one folder of predictions. Lines of a folder that somebody else wrote are
    data: checked, and never used as paths to write to."""

    def __init__(self, folder: Path) -> None:
        """
        Raises:
            InputError: the file is damaged.
        """
        self.folder = folder
        self.path = folder / RECORDS
        self.settings: Record | None = None  # None: nothing was recorded yet
        self.is_finished = False  # the tables and the page hold all records
        self.written: dict[str, str] = {}  # digests of the files that were written last, by name
        self.class_names: tuple[str, ...] = ()  # of the run; empty before anything was written
        self.key_of: dict[str, str] = {}  # by id of an image
        self._places: dict[str, tuple[int, Stamp]] = {}  # by key: where the line begins
        self._videos: dict[str, tuple[int, int, Stamp]] = {}  # by key: every, frames
        self._complete_videos: list[Record] = []  # recorded when all of their frames are
        self._end = 0  # of the last complete line
        for place, record in _records(self.path):
            self._take(place, record)

    def _take(self, place: int, record: Record) -> None:
        try:
            match record.get("kind"):
                case "settings":
                    self.settings = record
                case "image":
                    _require_image(record)
                    self.is_finished = False
                    self._places[record["key"]] = (place, _stamp(record))
                    self.key_of[record["id"]] = record["key"]
                case "video":
                    every, frames = int(record["every"]), int(record["frames"])
                    self._videos[record["key"]] = (every, frames, _stamp(record))
                case "finished":
                    self.is_finished = True
                    self.written = dict(record["written"])
                    self.class_names = tuple(record["class_names"])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{self.path}: a line is damaged ({error}); move the file away, or set output=… to "
                "another folder"
            ) from error

    def has(self, key: str, stamp: Stamp) -> bool:
        """Whether this very image has been classified."""
        return key in self._places and stamp.allows(self._places[key][1])

    def frames_of(self, key: str, every: int, stamp: Stamp) -> int | None:
        """How many frames a video has, if all that are asked for have been classified."""
        known = self._videos.get(key)
        return known[1] if known and (known[0], known[2]) == (every, stamp) else None

    @property
    def keys(self) -> Iterable[str]:
        return self._places.keys()

    def read(self, keys: Iterable[str]) -> Iterator[Record]:
        """The records of images, in the order of their keys.

        Raises:
            InputError: the file has been damaged meanwhile.
        """
        if not self._places:
            return
        with self.path.open("rb") as file:
            for key in keys:
                file.seek(self._places[key][0])
                yield _parsed(file.readline(), self.path)

    def append(self, records: Sequence[Record], tiles: Sequence[Record] = ()) -> None:
        """Add records and the tiles that belong to them, which are on the disk when this returns.

        Raises:
            OSError: the disk is full or cannot be written; an incomplete line is dropped later.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with naming(self.folder):
            if tiles:  # first: a tile without its record is ignored
                _append(self.folder / TILES, None, tiles)
            places = _append(self.path, self._end, records)
        for (start, end), record in zip(places, records, strict=True):
            self._take(start, record)
            self._end = end

    def video(self, key: str, stamp: Stamp, every: int, frames: int) -> None:
        """Record that all frames of a video are in the records, or in those to come next."""
        line = {"kind": "video", **stamped(key, stamp), "every": every, "frames": frames}
        self._complete_videos.append(line)

    def finish(self, written: dict[str, str], class_names: Sequence[str]) -> None:
        """Record that the files that were written hold all records."""
        line = {"kind": "finished", "written": written, "class_names": list(class_names)}
        self.append([*self._complete_videos, line])
        self._complete_videos = []

    def truncate(self) -> None:
        """Drop a last line that a killed process has not completed, before anything is added."""
        self._end = 0
        for name in (RECORDS, TILES):
            path = self.folder / name
            if path.is_file():
                end = _end_of_lines(path)
                if end != path.stat().st_size:
                    os.truncate(path, end)
                if name == RECORDS:
                    self._end = end

    def tiles(self) -> Iterator[Record]:
        """Pictures of regions whose image is still the one that was classified.

        Raises:
            InputError: the file is damaged.
        """
        for _, tile in _records(self.folder / TILES):
            try:
                if self.has(tile["key"], _stamp(tile)):
                    yield tile
            except (KeyError, TypeError, ValueError) as error:
                raise InputError(
                    f"{self.folder / TILES}: a line is damaged ({error}); set output=… to another "
                    "folder"
                ) from error


def stamped(key: str, stamp: Stamp) -> Record:
    """The entries of a record that say which image it is of."""
    return {"key": key, **asdict(stamp)}


def _stamp(record: Record) -> Stamp:
    if not isinstance(record["key"], str):
        raise TypeError("key is no text")
    # An earlier version did not write the last one.
    return Stamp(int(record["size"]), int(record["modified"]), int(record.get("map_modified", 0)))


def _require_image(record: Record) -> None:
    """
    Raises:
        KeyError, TypeError: a value is missing, or is of another type.
    """
    for each, kinds in [(record, _IMAGE), *((region, _REGION) for region in record["regions"])]:
        for name, kind in kinds.items():
            # JSON has one kind of number, so a whole one may be an int
            if not isinstance(each[name], (int, float) if kind is float else kind):
                raise TypeError(f"{name} is of another type")
    for region in record["regions"]:
        if len(region["box"]) != 4 or not all(isinstance(side, int) for side in region["box"]):
            raise TypeError("box is not four whole numbers")


def _append(path: Path, start: int | None, records: Sequence[Record]) -> list[tuple[int, int]]:
    """Write lines and sync them: where each begins and ends."""
    places = []
    with path.open("ab") as file:
        if start is not None and file.tell() != start:
            file.truncate(start)
            file.seek(start)
        for record in records:
            begin = file.tell()
            file.write(json.dumps(record).encode() + b"\n")
            places.append((begin, file.tell()))
        file.flush()
        os.fsync(file.fileno())
    return places


def _records(path: Path) -> Iterator[tuple[int, Record]]:
    """Complete lines and where they begin; none if there is no file."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        place = 0
        for line in file:
            if not line.endswith(b"\n"):  # a killed process was writing it
                return
            yield place, _parsed(line, path)
            place += len(line)


def _parsed(line: bytes, path: Path) -> Record:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise InputError(
            f"{path}: a line is damaged; move the file away, or set output=… to another folder"
        )
    return record


def _end_of_lines(path: Path) -> int:
    """The size of a file without an incomplete last line."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - 65536)
            file.seek(start)
            last = _last_newline(file, start, end)
            if last is not None:
                return last
            end = start
    return 0


def _last_newline(file: BinaryIO, start: int, end: int) -> int | None:
    at = file.read(end - start).rfind(b"\n")
    return None if at < 0 else start + at + 1
