"""The file of decisions, `decisions.jsonl` in a run's folder: lines are only ever appended.

A line is on the disk before its decision counts, and several processes append safely. A last line
that a crash cut off is moved to a file of its own, never dropped.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from anomalyncd.decisions.actions import Decision, from_line, to_line
from anomalyncd.errors import InputError
from anomalyncd.storage.atomic import sync

NAME = "decisions.jsonl"
_MAX_BYTES = 1_000_000_000
_WAIT = 10  # seconds for another process to finish its line


class Journal:
    """The decisions on a run, as far as they have been read."""

    def __init__(self, run: Path) -> None:
        self.path = run / NAME
        self.decisions: list[Decision] = []
        self._torn = ""  # about a line that is cut off now …
        self._aside = ""  # … and about one that this process has moved
        self._read = 0  # bytes; always a whole number of lines
        self._lines = 0
        self._ids: set[str] = set()

    @property
    def warning(self) -> str:
        """What a person must know of a line that was cut off; empty if there was none."""
        return self._torn or self._aside

    def refresh(self) -> bool:
        """Read what was appended since the last time, by whichever process.

        Returns:
            Whether there were new decisions.

        Raises:
            InputError: the file cannot be read, is damaged, has become shorter, or holds lines of
                a newer version.
        """
        whole, torn = self._new_bytes()
        self._torn = (
            f"{self.path}: the last line is cut off ({len(torn)} bytes without a line end); it "
            "does not count, and the next decision moves it to a file of its own"
            if torn and not _is_decision(torn)
            else ""
        )
        return self._take(whole)

    def append(self, decisions: Sequence[Decision]) -> None:
        """Append decisions, after those that other processes have appended meanwhile.

        When this returns, they are on the disk.

        Raises:
            InputError: as `refresh`; the file cannot be written, or another process holds it.
        """
        lock = FileLock(self.path.with_name(f".{NAME}.lock"), timeout=_WAIT)
        try:
            with lock:
                self._mend()
                self.refresh()
                is_new = not self.path.exists()
                with self.path.open("ab") as file:
                    file.write("".join(map(to_line, decisions)).encode("ascii"))
                    file.flush()
                    os.fsync(file.fileno())
                if is_new:
                    sync(self.path.parent)
                self.refresh()
        except Timeout:
            raise InputError(
                f"{self.path}: another process has been writing for {_WAIT} s; end it, then repeat"
            ) from None
        except OSError as error:
            raise InputError(
                f"{self.path}: cannot be written ({error.strerror or error}); free space, or make "
                "the run's folder writable"
            ) from error

    def _mend(self) -> None:
        """End the file with a whole line. Only while no other process writes."""
        whole, torn = self._new_bytes()
        if not torn:
            return
        end = self._read + len(whole)
        if _is_decision(torn):  # only its line end is missing
            with self.path.open("ab") as file:
                file.write(b"\n")
                file.flush()
                os.fsync(file.fileno())
            return
        aside = self._free_name()
        with aside.open("xb") as file:
            file.write(torn)
            file.flush()
            os.fsync(file.fileno())
        sync(aside.parent)
        with self.path.open("rb+") as file:
            file.truncate(end)
            os.fsync(file.fileno())
        self._aside = (
            f"{self.path}: the last line was cut off ({len(torn)} bytes); it does not count, and "
            f"is kept in {aside.name}"
        )

    def _free_name(self) -> Path:
        number = 1
        while os.path.lexists(aside := self.path.with_name(f"decisions.torn-{number}")):
            number += 1
        return aside

    def _new_bytes(self) -> tuple[bytes, bytes]:
        """What follows the part that was read: whole lines, and the start of a torn one."""
        try:
            with self.path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                file.seek(self._read)
                content = file.read(_MAX_BYTES + 1)
        except FileNotFoundError:
            size, content = 0, b""
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read ({error.strerror or error})") from error
        if size < self._read:
            raise InputError(
                f"{self.path}: has become shorter, but decisions are only ever appended; put the "
                "file back, then start the review again"
            )
        if len(content) > _MAX_BYTES:
            raise InputError(f"{self.path}: larger than {_MAX_BYTES:,} bytes")
        whole, end, torn = content.rpartition(b"\n")
        return whole + end, torn

    def _take(self, content: bytes) -> bool:
        found: list[Decision] = []
        ids = set(self._ids)
        for number, line in enumerate(content.splitlines(), self._lines + 1):
            where = f"{self.path}, line {number}"
            try:
                decision = from_line(line.decode("utf-8"), where)
            except UnicodeDecodeError as error:
                raise InputError(f"{where}: not UTF-8 text") from error
            if decision.id not in ids:  # a file that was joined with itself
                ids.add(decision.id)
                found.append(decision)
        self.decisions = [*self.decisions, *found]
        self._read += len(content)
        self._lines += content.count(b"\n")
        self._ids = ids
        return bool(found)


def _is_decision(line: bytes) -> bool:
    try:
        from_line(line.decode("utf-8"), "")
    except (UnicodeDecodeError, InputError):
        return False
    return True
