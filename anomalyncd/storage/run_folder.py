"""A run's folder; its path is determined by what the run computes.

So different runs never share a folder, a finished run is recognised, and an interrupted one
resumes.
"""

from __future__ import annotations

import json
import re
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from anomalyncd.config import Config
from anomalyncd.errors import InputError
from anomalyncd.storage.atomic import archive, atomic_write
from anomalyncd.storage.cache import digest
from anomalyncd.storage.identity import Digests, result_settings
from anomalyncd.storage.run_record import METRICS, PROGRESS, read_metrics, read_progress

# Settings that do not change a run's results: where files lie, what is shown, how much memory.
NON_RESULT_KEYS = (
    *("tracker", "device", "forward_batch", "output_root", "cache_root", "max_megapixels"),
    *("rerun", "quiet", "debug"),
)

STATE = "training.safetensors"  # the latest saved epoch, while the run is not finished
_INPUTS = "inputs.json"


class RunFolder:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.is_rerun = False  # recorded with the progress, so that a killed rerun is resumed

    @classmethod
    def of(cls, config: Config) -> RunFolder:
        """<output_root>/<dataset>/<category>/<detector>/<backbone>-<base>-<hash>/seed-<n>"""
        settings = {k: v for k, v in asdict(config).items() if k not in NON_RESULT_KEYS}
        seed = settings.pop("seed")
        variant = (
            f"{config.backbone.name}-{config.base.kind}-{digest(result_settings(settings))[:8]}"
        )
        parts = [config.dataset.kind, config.category, config.detector.label, variant]
        return cls(Path(config.output_root, *map(_folder_name, parts), f"seed-{seed}"))

    @property
    def finished(self) -> bool:
        return (self.root / METRICS).exists()  # written last

    @property
    def metrics(self) -> dict[str, Any]:
        """All figures of a finished run.

        Raises:
            InputError: the file is damaged.
        """
        try:
            return read_metrics(self.root / METRICS)[1]
        except InputError as error:
            raise InputError(
                f"{error}; rerun=true archives this folder and computes the run again"
            ) from error

    @property
    def inputs(self) -> Digests | None:
        """Digests of the files that the run is computed from; None if not recorded."""
        try:
            found = json.loads((self.root / _INPUTS).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return None
        known = isinstance(found, dict) and all(isinstance(d, dict) for d in found.values())
        return found if known else None

    def note_inputs(self, inputs: Digests) -> None:
        """Record the digests of the files that the run is computed from."""
        self.write_text(_INPUTS, json.dumps(inputs, indent=1))  # ASCII: names may be no Unicode

    def path(self, name: str) -> Path:
        return self.root / name

    @property
    def _lock(self) -> Path:
        return _lock_of(self.root)

    @property
    def is_held(self) -> bool:
        """Whether a process computes the run now, on this machine or another with the same disk."""
        return is_locked(self._lock)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Lock the run for this process, whether its folder exists or not.

        Raises:
            InputError: the place cannot be written, or another process holds the lock.
        """
        busy = "another process computes this run; wait for it, or change a setting"
        with hold(self.root, busy, "set output_root=… elsewhere"):
            yield

    def create(self) -> None:
        """Create the folder, unless an earlier attempt has."""
        self.root.mkdir(exist_ok=True)

    def note_progress(self, **progress: Any) -> None:
        """Record the run's progress for other processes: the fields of `run_record.Progress`."""
        if self.is_rerun and "failed" not in progress:
            progress["rerun"] = True
        self.write_json(PROGRESS, {**progress, "at": time.time()})

    @property
    def has_unfinished_rerun(self) -> bool:
        """A rerun of this folder was killed. A rerun that failed starts from scratch instead."""
        try:
            return not self.finished and read_progress(self.root).rerun
        except InputError:  # damaged, so not reliable
            return False

    def finish(self, metrics: dict[str, Any]) -> None:
        """Write the metrics, which mark the run as finished."""
        self.write_json(METRICS, metrics)
        (self.root / PROGRESS).unlink(missing_ok=True)

    def archive(self) -> Path | None:
        """Rename the folder, if it exists, so that a rerun does not overwrite it.

        Returns:
            Its new path; None if there was none.
        """
        return archive(self.root)

    def write_text(self, name: str, text: str) -> None:
        with atomic_write(self.root / name) as draft:
            draft.write_text(text, encoding="utf-8", newline="")

    def write_json(self, name: str, value: Any) -> None:
        self.write_text(name, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


@contextmanager
def hold(folder: Path, busy: str, elsewhere: str) -> Iterator[None]:
    """Let one process at a time use a folder, by a lock beside it; the folder need not exist.

    Args:
        folder: the folder to write to.
        busy: the message if another process holds it.
        elsewhere: what to do if it cannot be written.

    Raises:
        InputError: another process holds it, or it cannot be written.
    """
    lock = FileLock(_lock_of(folder), timeout=1)  # a process may test the lock briefly
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise InputError(f"{folder}: {busy}") from None
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror}); {elsewhere}") from error
    try:
        yield
    finally:
        lock.release()


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.lock")


def is_locked(path: Path) -> bool:
    """Whether another process holds this lock; the system releases it however the process ends.

    The lock is only tested: acquiring it would empty a user's file that has its name.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would block forever
            return False
    except (OSError, ValueError):
        return False
    try:
        import fcntl  # not on Windows
    except ImportError:
        return _is_locked_on_windows(path)
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    return False


def _is_locked_on_windows(path: Path) -> bool:
    try:
        with FileLock(path, timeout=0):
            return False
    except (Timeout, OSError):
        return True


def _folder_name(name: str) -> str:
    """A name valid on every file system: no slashes or colons, no dots at the ends."""
    return re.sub(r"[^\w+.=-]+", "_", name).strip("._") or "_"
