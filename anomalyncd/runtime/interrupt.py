"""Ctrl-C ends with one line and status 130, also while libraries load and settings are composed.

Until there is something to leave in order, the process ends at once: an exception would come up in
whatever library was being imported. Entry points import this first, which is why it imports little.
"""

from __future__ import annotations

import os
import signal
from types import FrameType

STATUS = 130  # as shells know it
MESSAGE = "Interrupted; run the same command again: stages done and epochs kept are not lost."


def end_at_once() -> None:
    """Until `raise_from_now_on`; nothing is changed where interrupts are ignored or handled."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def raise_from_now_on() -> None:
    """Interrupts are KeyboardInterrupt again, for code that leaves things in order."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(number: int, frame: FrameType | None) -> None:
    os.write(2, f"\n{MESSAGE}\n".encode())
    os._exit(STATUS)
