"""Photographs wait in a line of bounded length; one thread classifies those that wait together."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from PIL import Image

from anomalyncd.errors import InputError
from anomalyncd.serving.metrics import Metrics
from anomalyncd.serving.models import Answer, Model

log = logging.getLogger(__name__)


class Full(Exception):
    """The line is full."""


class Failed(Exception):
    """A fault of this program, or of the machine; the photograph may be a good one."""


@dataclass
class _Waiting:
    model: Model
    photograph: Image.Image
    answer: Future[Answer] = field(default_factory=Future)
    since: float = field(default_factory=time.monotonic)


class Line:
    """One thread for all models: two networks at once on the same cores help nobody."""

    def __init__(
        self, metrics: Metrics, *, longest: int = 64, together: int = 16, seconds: float = 0.003
    ) -> None:
        """
        Args:
            metrics: counted on.
            longest: number of photographs that may wait.
            together: photographs that are classified at once, at most.
            seconds: that a photograph waits for others.
        """
        self._metrics, self._longest = metrics, longest
        self._together, self._seconds = together, seconds
        self._waiting: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._pace = 0.2  # seconds for one photograph, lately
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether photographs are still classified."""
        return self._thread.is_alive()

    @property
    def wait(self) -> int:
        """Seconds after which there should be room, at least 1."""
        return min(max(math.ceil(len(self._waiting) * self._pace), 1), 60)

    def put(self, model: Model, photographs: Sequence[Image.Image]) -> list[Future[Answer]]:
        """Have photographs classified, all of them or none; a future may be cancelled.

        Futures raise InputError for a photograph that cannot be used, and Failed.

        Raises:
            Full: there is no room for all of them, or the line is closed.
        """
        added = [_Waiting(model, photograph) for photograph in photographs]
        with self._changed:
            if self._closed or len(self._waiting) + len(added) > self._longest:
                raise Full
            self._waiting.extend(added)
            self._metrics.waiting.set(len(self._waiting))
            self._changed.notify()
        return [one.answer for one in added]

    def close(self) -> None:
        """Classify what waits, and end."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while group := self._next():
            begun = time.monotonic()
            self._classify(group)
            pace = (time.monotonic() - begun) / len(group)
            self._pace = 0.8 * self._pace + 0.2 * pace
            self._metrics.together.observe(len(group))

    def _next(self) -> list[_Waiting]:
        """The photographs of one model that wait, in order; none: the line is closed."""
        with self._changed:
            while True:
                while self._waiting and self._waiting[0].answer.cancelled():
                    self._waiting.popleft()
                if not self._waiting and self._closed:
                    return []
                if not self._waiting:
                    self._changed.wait()
                    continue
                first = self._waiting[0]
                group = [one for one in self._waiting if one.model is first.model]
                remaining = first.since + self._seconds - time.monotonic()
                if len(group) >= self._together or remaining <= 0 or self._closed:
                    break
                self._changed.wait(remaining)
            group = group[: self._together]
            chosen = set(map(id, group))
            self._waiting = deque(one for one in self._waiting if id(one) not in chosen)
            self._metrics.waiting.set(len(self._waiting))
            return group

    def _classify(self, group: Sequence[_Waiting]) -> None:
        group = [one for one in group if one.answer.set_running_or_notify_cancel()]
        if not self._answered(group):
            for one in group:  # one of them is at fault; the others are answered
                self._answered([one])

    def _answered(self, group: Sequence[_Waiting]) -> bool:
        """Classify together; False: a photograph among several is at fault."""
        if not group:
            return True
        fault: Exception
        try:
            answers = group[0].model.answers([one.photograph for one in group])
        except InputError as error:
            fault = error
        except Exception as error:  # the service stays alive, whatever a photograph does
            log.error("classification failed: %r", error)
            fault = Failed()
        else:
            for one, answer in zip(group, answers, strict=True):
                one.answer.set_result(answer)
            return True
        if len(group) == 1:
            group[0].answer.set_exception(fault)
        return len(group) == 1
