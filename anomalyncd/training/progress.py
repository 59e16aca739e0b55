"""Reports the progress of training: as a bar, in the log, and to other processes."""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack

from anomalyncd.runtime import console
from anomalyncd.storage.run_folder import RunFolder

log = logging.getLogger(__name__)


class TrainingProgress(ExitStack):
    """Shows a bar while it is open; called whenever another view or epoch is done."""

    def __init__(self, folder: RunFolder, *, quiet: bool) -> None:
        super().__init__()
        self._folder, self._quiet = folder, quiet
        self._unit, self._fifths = "", console.ProgressThrottle()
        self._began = self._latest = time.perf_counter()

    def __call__(self, unit: str, done: int, total: int, before: int, word: str = "") -> None:
        """Report that another unit is done.

        Args:
            unit: `view` or `epoch`; a new unit starts its own bar.
            done: number of units done.
            total: number of all units.
            before: number of units done by an earlier process.
            word: short text on the current losses.
        """
        if unit != self._unit:
            self._unit, self._began = unit, self._latest
            self._fifths = console.ProgressThrottle(before / total)
            self.close()
            self._advance = self.enter_context(
                console.progress(f"Training: {unit}s", total, quiet=self._quiet)
            )
        self._latest = time.perf_counter()
        left = (self._latest - self._began) / (done - before) * (total - done)
        self._advance(done, word.partition(",")[0])
        # Without a bar, a line now and then shows that training proceeds.
        is_shown = self._fifths.another(done / total) and not console.terminal.is_terminal
        level = logging.INFO if is_shown else logging.DEBUG
        log.log(level, "%s %d of %d%s", unit, done, total, word and f": {word}")
        self._folder.note_progress(
            stage="train", unit=unit, done=done, total=total, seconds_left=round(left, 3)
        )
