"""Cases of the campaign, spread over worker processes; each leaves one row of the table."""

from __future__ import annotations

import json
import os
import shutil
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from scripts.campaign import process
from scripts.campaign.process import Ended

_NUMBER = struct.Struct("i")


@dataclass(frozen=True)
class Row:
    """What came of one case."""

    part: str  # kills, bad input, …
    kind: str  # of case, within its part
    name: str
    outcome: str  # in words
    fault: str = ""  # what was not as promised; empty if all was
    status: int | None = None  # of the call that the case is about
    lines: int = 0  # that it printed on stderr
    tracebacks: int = 0
    named: bool | None = None  # the message names the file or setting; None: there is none to name
    tags: tuple[str, ...] = field(default=())  # for sums: a kill's stage

    @classmethod
    def of(cls, stored: dict) -> Row:
        return cls(**{**stored, "tags": tuple(stored["tags"])})


@dataclass(frozen=True)
class Case:
    """Something to try."""

    part: str
    kind: str
    name: str
    work: Callable[[Path], Row]  # given a new, empty folder of its own

    def row(self, outcome: str, fault: str = "", ended: Ended | None = None, **more: object) -> Row:
        known = {} if ended is None else _of_call(ended)
        return Row(self.part, self.kind, self.name, outcome, fault, **{**known, **more})


def _of_call(ended: Ended) -> dict:
    return {
        "status": ended.status,
        "lines": len(ended.message),
        "tracebacks": int(ended.has_traceback),
    }


def spread(
    cases: Sequence[Case], scratch: Path, *, workers: int, until: float, keep: bool = False
) -> list[Row]:
    """Work on all cases, each in a folder of its own that is removed afterwards.

    Args:
        cases: what to try.
        scratch: a folder for all that is written.
        workers: processes that work at the same time.
        until: `time.monotonic()` after which no further case is begun.
        keep: leave the folders of cases with a fault.
    """
    if not cases:
        return []
    scratch.mkdir(parents=True, exist_ok=True)
    queue, put = os.pipe()  # holds the numbers of some 16,000 cases
    os.write(put, b"".join(map(_NUMBER.pack, range(len(cases)))))
    os.close(put)
    sys.stdout.flush()
    pids = []
    for worker in range(workers):
        pid = os.fork()
        if pid == 0:
            _work(cases, queue, scratch, scratch / f"rows-{worker}", until, keep)
        pids.append(pid)
    os.close(queue)
    try:
        for pid in pids:
            os.waitpid(pid, 0)
    except BaseException:  # interrupted: their runs end with them
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        raise
    rows = [
        Row.of(json.loads(line))
        for path in sorted(scratch.glob("rows-*"))
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    for path in scratch.glob("rows-*"):
        path.unlink()
    order = {(case.part, case.kind, case.name): number for number, case in enumerate(cases)}
    return sorted(rows, key=lambda row: order[row.part, row.kind, row.name])


def _work(
    cases: Sequence[Case], queue: int, scratch: Path, rows: Path, until: float, keep: bool
) -> None:
    status = 1
    try:
        process.die_with_parent()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with rows.open("w", encoding="utf-8") as file:
            while time.monotonic() < until and (taken := os.read(queue, _NUMBER.size)):
                number = _NUMBER.unpack(taken)[0]
                row = _row_of(cases[number], scratch / f"{number:04d}", keep)
                file.write(json.dumps(asdict(row)) + "\n")
                file.flush()
                mark = "FAULT" if row.fault else "ok"
                told = f"{mark:5} {row.part} · {row.kind} · {row.name}: {row.fault or row.outcome}"
                print(told[:400], flush=True)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


def _row_of(case: Case, folder: Path, keep: bool) -> Row:
    folder.mkdir()
    try:
        row = case.work(folder)
    except Exception as error:  # a fault of the campaign, or of what it did not foresee
        where = traceback.extract_tb(error.__traceback__)[-1]
        fault = f"the campaign failed: {error!r} ({Path(where.filename).name}:{where.lineno})"
        row = case.row("", fault)
    if not (keep and row.fault):
        shutil.rmtree(folder, ignore_errors=True)
    return row
