"""The GPUs of this machine, shared among the workers of a sweep: each worker keeps one."""

from __future__ import annotations

import os
import time
from functools import cache
from pathlib import Path

from filelock import FileLock, Timeout

from anomalyncd.errors import InputError

_held: list[FileLock] = []  # as long as the process lives


@cache  # as it was before this worker took one
def visible() -> list[str]:
    """What CUDA_VISIBLE_DEVICES names, or else the number of each GPU there is."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [gpu.strip() for gpu in named.split(",") if gpu.strip()]
    import torch  # only here: it takes seconds to load

    return [str(number) for number in range(torch.cuda.device_count())]


def count() -> int:
    """As many jobs as can have a GPU of their own; 1 on a machine without any."""
    return max(len(visible()), 1)


@cache  # a worker keeps what it has taken for all its jobs
def take(n_workers: int, folder: str) -> str:
    """The GPU of this worker, by the first of `n_workers` places that no other one holds.

    Workers beyond the number of GPUs share them in turn.

    Args:
        n_workers: how many there are at most at a time.
        folder: their sweep's, for the locks; they go with the process, however it ends.

    Raises:
        InputError: no place for any worker.

    Returns:
        A value of CUDA_VISIBLE_DEVICES; empty on a machine without a GPU.
    """
    if n_workers < 1:
        raise InputError(
            f"hydra.launcher.n_jobs={n_workers}: expected how many jobs run at a time, 1 or more"
        )
    gpus = visible()
    while True:
        for place in range(n_workers):
            lock = FileLock(Path(folder) / f".worker-{place}.lock", timeout=0)
            try:
                lock.acquire()
            except Timeout:
                continue
            _held.append(lock)
            return gpus[place % len(gpus)] if gpus else ""
        time.sleep(0.1)  # the one that a worker replaces has not gone yet
