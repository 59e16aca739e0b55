"""Runs of the product's commands: started, killed at a chosen moment, and what they left behind.

Importing the product takes seconds, so most runs are forks of this process, which has imported it
once and computed nothing: no thread runs in it, and a fork begins as a fresh interpreter would.
"""

from __future__ import annotations

import ctypes
import os
import resource
import runpy
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
MEMORY = 8 << 30  # bytes that a run may take for its data, so that none harms the machine
# What changes files, as Python's audit hooks call it.
_CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND
_PR_SET_PDEATHSIG = 1


def prepare() -> None:
    """Import the product, once, for all forks.

    Raises:
        RuntimeError: a thread runs in this process, which its forks would miss.
    """

    if (threads := len(os.listdir("/proc/self/task"))) > 1:
        raise RuntimeError(f"{threads} threads run after the imports; a fork would have only one")


@dataclass(frozen=True)
class Ended:
    """How a run ended."""

    status: int  # negative: the signal that ended it
    out: str
    err: str
    seconds: float
    too_long: bool  # it was killed because its time was over

    @property
    def has_traceback(self) -> bool:
        return "Traceback" in self.err or "Error in sys.excepthook" in self.err

    @property
    def killed(self) -> bool:
        return self.status == -signal.SIGKILL and not self.too_long

    @property
    def message(self) -> list[str]:
        """Lines on stderr."""
        return [line for line in self.err.splitlines() if line.strip()]


class Run:
    """One command, running."""

    def __init__(self, pid: int, report: Path, reaped: Callable[[], int | None]) -> None:
        self._pid, self._report, self._reaped = pid, report, reaped
        self._began = time.monotonic()

    def kill(self) -> None:
        """Kill it, and whatever it has started."""
        for target in (os.killpg, os.kill):  # it may not lead its group yet
            try:
                target(self._pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def wait(self, timeout: float, *, kill: bool = False) -> Ended:
        """Wait until it ends.

        Args:
            timeout: seconds, then it is killed.
            kill: being killed then is what the caller wants.
        """
        deadline = time.monotonic() + timeout
        late = False
        while (status := self._reaped()) is None:
            if time.monotonic() > deadline:
                late = True
                self.kill()
                deadline += 3600  # only reaping is left
            time.sleep(0.003)
        out, err = (
            self._report.with_suffix(end).read_text(errors="replace") for end in (".out", ".err")
        )
        return Ended(status, out, err, time.monotonic() - self._began, late and not kill)


@dataclass(frozen=True)
class Command:
    """A script of this repository with its arguments."""

    script: str
    arguments: tuple[str, ...]
    folder: Path  # to work in

    def fork(self, report: Path, *, kill_at: int | None = None, changes: Path | None = None) -> Run:
        """Run it in a fork of this process.

        Args:
            report: its stdout and stderr go to files of this name with .out and .err.
            kill_at: it is killed just before it changes files for the n-th time, from 1.
            changes: a file that gets a line per change: event and path.
        """
        pid = os.fork()
        if pid == 0:
            _be_the_command(self, report, kill_at, changes)
        return Run(pid, report, lambda: _reap(pid))

    def spawn(self, report: Path) -> Run:
        """Run it in a process of its own, as a user does."""
        with (
            report.with_suffix(".out").open("wb") as out,
            report.with_suffix(".err").open("wb") as err,
        ):
            process = subprocess.Popen(
                [sys.executable, str(ROOT / self.script), *self.arguments],
                cwd=self.folder,
                stdout=out,
                stderr=err,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "TMPDIR": str(report.parent)},
                start_new_session=True,
                preexec_fn=_limited,  # this process has no threads
            )
        return Run(process.pid, report, process.poll)


def die_with_parent() -> None:
    """Nothing of a campaign outlives it."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _reap(pid: int) -> int | None:
    found, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def _limited() -> None:
    die_with_parent()
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _be_the_command(
    command: Command, report: Path, kill_at: int | None, changes: Path | None
) -> None:
    """Do what `python script arguments` does, and end this process as it would."""
    status = 1
    try:
        os.setsid()
        _limited()
        for descriptor, end in ((1, ".out"), (2, ".err")):
            os.dup2(os.open(report.with_suffix(end), os.O_CREAT | os.O_WRONLY), descriptor)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdout = open(1, "w", encoding="utf-8", errors="replace")  # noqa: SIM115
        sys.stderr = open(2, "w", encoding="utf-8", errors="replace")  # noqa: SIM115
        os.chdir(command.folder)
        os.environ["TMPDIR"] = tempfile.tempdir = str(report.parent)
        sys.argv = [str(ROOT / command.script), *command.arguments]
        if kill_at is not None or changes is not None:
            sys.addaudithook(_Changes(command.folder, kill_at, changes))
        runpy.run_path(sys.argv[0], run_name="__main__")
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except OSError:
                status = 120
        os._exit(status)


class _Changes:
    """Counts a process's changes below a folder, and kills it at one of them."""

    def __init__(self, below: Path, kill_at: int | None, log: Path | None) -> None:
        self._below = f"{below}{os.sep}"
        self._left = kill_at
        flags = os.O_CREAT | os.O_WRONLY | os.O_APPEND
        self._log = None if log is None else os.open(log, flags)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if not flags & _WRITING:
                return
        elif event in _CHANGES:
            path = arguments[1] if event == "os.rename" else arguments[0]
        else:
            return
        if isinstance(path, int):
            return
        whole = os.path.abspath(os.fsdecode(path))
        if not whole.startswith(self._below):
            return
        if self._log is not None:
            os.write(self._log, f"{event}\t{whole}\n".encode(errors="replace"))
        if self._left is not None:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
