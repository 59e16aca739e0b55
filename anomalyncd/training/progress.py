"""Says how far training is: by a bar, in the log, and to other processes."""

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
        """Tell that another one is done.

        Args:
            unit: of what is done; the first of a kind began where the last of another ended.
            done: how many of them.
            total: of how many.
            before: how many of those done an earlier process had done.
            word: on how it goes.
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
