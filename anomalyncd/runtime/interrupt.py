"""Ctrl-C ends with one line and status 130, also while libraries load and settings are composed.

While there is nothing to clean up, the process ends at once: an exception would be raised inside
whatever library is being imported. Entry points import this module first, so it imports little.
"""

from __future__ import annotations

import os
import signal
from types import FrameType

STATUS = 130  # the convention of shells
MESSAGE = "Interrupted; run the same command again to resume: finished stages and epochs are kept."


def end_at_once() -> None:
    """End at once until `raise_from_now_on`; no effect if interrupts are ignored or handled."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def raise_from_now_on() -> None:
    """Interrupts raise KeyboardInterrupt again, for code that cleans up."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(number: int, frame: FrameType | None) -> None:
    os.write(2, f"\n{MESSAGE}\n".encode())
    os._exit(STATUS)
