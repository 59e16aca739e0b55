"""Disks that are too small: one line with a path, and with room the same command finishes.

Each disk is a tmpfs that a case mounts in a mount namespace of its own, so that nothing is left
mounted, whatever happens. Where the kernel does not allow that, the cases say so and show nothing.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scripts.campaign import process, results
from scripts.campaign.cases import Case, Row
from scripts.campaign.kills import Whole, predict
from scripts.campaign.process import Command, Ended
from scripts.campaign.products import Product
from scripts.campaign.trials import usual

TIMEOUT = 120.0
ROOM = 256 << 20  # bytes
# Of what a finished run takes; on its way, with its training state and features, it takes more.
SHARES = (0.02, 0.05, 0.08, 0.15, 0.4, 0.9, 1.5, 2.2, 3.0, 4.0, 5.0)
NOT_SHOWN = "not shown"
_NEWNS, _NEWUSER = 0x00020000, 0x10000000
_REMOUNT, _REC, _PRIVATE = 0x20, 0x4000, 0x40000


def cases(whole: Whole) -> Iterator[Case]:
    """Args: whole: the undisturbed run of the usual settings, with its product beside it."""
    for place in ("out", "out/cache"):
        what = "of results and cache" if place == "out" else "of the cache alone"
        needed = _size(whole.case / place)
        for share in SHARES:
            size = max(int(share * needed) // 4096, 1) * 4096
            yield _case(
                what,
                f"{size // 1024} KiB, {share:.0%} of what a finished run takes",
                place,
                size,
                whole,
            )
    yield _case("of a prediction's tables", "4 KiB", "predicted", 4096, whole)


def _case(what: str, name: str, place: str, size: int, whole: Whole) -> Case:
    made = Case("disks", what, name, lambda at: _work(made, place, size, whole, at))
    return made


def _work(made: Case, place: str, size: int, whole: Whole, folder: Path) -> Row:
    work, calls, told = folder / "work", folder / "calls", folder / "told.json"
    shutil.copytree(whole.case / "product", work / "product")
    if place == "predicted":
        shutil.copytree(whole.run, work / whole.run.relative_to(whole.case))
    (work / place).mkdir(parents=True)
    calls.mkdir()
    pid = os.fork()
    if pid == 0:
        _in_a_namespace(place, size, whole, work, calls, told)
    os.waitpid(pid, 0)
    if not told.exists():
        return made.row("", "the campaign failed: the case told nothing")
    return made.row(**json.loads(told.read_text()))


def _in_a_namespace(
    place: str, size: int, whole: Whole, work: Path, calls: Path, told: Path
) -> None:
    """Work on a case where its mount is seen by nobody else, and end this process."""
    try:
        process.die_with_parent()
        try:
            _separate()
            _mount(work / place, size)
        except OSError as error:
            row: dict[str, Any] = {"outcome": f"{NOT_SHOWN}: cannot mount a disk ({error})"}
        else:
            row = _on_the_disk(place, whole, work, calls)
        told.write_text(json.dumps(row))
    except BaseException:
        told.write_text(json.dumps({"outcome": "", "fault": traceback.format_exc()[-300:]}))
    finally:
        os._exit(0)


def _on_the_disk(place: str, whole: Whole, work: Path, calls: Path) -> dict[str, Any]:
    small = Product(Path("product"))
    command = Command("train.py", (*usual(small), "output_root=out"), work)
    if place == "predicted":
        command = predict(small, work, whole.run.relative_to(whole.case))
    full = command.fork(calls / "full").wait(TIMEOUT)
    faults = [] if full.status == 0 else [_fault(full, place)]  # the largest disk may suffice
    _mount(work / place, ROOM, again=True)
    resumed = command.fork(calls / "resumed").wait(TIMEOUT)
    if resumed.status != 0 or resumed.has_traceback:
        told = " / ".join(resumed.message)[-200:]
        faults.append(f"with room: status {resumed.status}: {told}")
    elif place == "predicted":
        found = results.of_prediction(work / "predicted", work)
        faults.append(results.differences(found, whole.predicted))
    else:
        faults.append(results.difference_of_only_run(work, whole.found))
    message = " / ".join(full.message)[-200:]
    return {
        "outcome": f"{message}; with room: finished" if message else "finished, it has sufficed",
        "fault": "; ".join(filter(None, faults)),
        "status": full.status,
        "lines": len(full.message),
        "tracebacks": full.has_traceback + resumed.has_traceback,
        "named": None if full.status == 0 else _names_a_path(full, place),
    }


def _fault(full: Ended, place: str) -> str:
    faults = []
    if full.too_long:
        faults.append(f"still running after {TIMEOUT:.0f} s")
    if full.has_traceback:
        faults.append("a traceback")
    if len(full.message) != 1:
        faults.append(f"{len(full.message)} lines, not 1")
    if not _names_a_path(full, place):
        faults.append("no path")
    told = f": {' / '.join(full.message)[-200:]}" if faults else ""
    return ", ".join(faults) + told


def _names_a_path(full: Ended, place: str) -> bool:
    return re.search(rf"\b{place}\b", full.err) is not None


def _size(folder: Path) -> int:
    """Bytes of all files, in whole pages as a tmpfs counts."""
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return sum(-(-size // 4096) * 4096 for size in sizes)


def _separate() -> None:
    """Move this process into a mount namespace of its own, as root or as a user.

    Raises:
        OSError: not allowed.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    if libc.unshare(_NEWNS):
        _check(libc.unshare(_NEWUSER | _NEWNS))
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    _check(libc.mount(b"none", b"/", None, ctypes.c_ulong(_REC | _PRIVATE), None))


def _mount(folder: Path, size: int, *, again: bool = False) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    flags = ctypes.c_ulong(_REMOUNT if again else 0)
    _check(libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", flags, f"size={size}".encode()))


def _check(status: int) -> None:
    if status:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
