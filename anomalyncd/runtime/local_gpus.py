"""The GPUs of this machine, shared by the workers of a sweep: each worker keeps one."""

from __future__ import annotations

import os
import time
from functools import cache
from pathlib import Path

from filelock import FileLock, Timeout

from anomalyncd.errors import InputError

_held: list[FileLock] = []  # until the process ends


@cache  # the value before this worker took one
def visible() -> list[str]:
    """The GPUs in CUDA_VISIBLE_DEVICES; if it is not set, the numbers of all GPUs."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [gpu.strip() for gpu in named.split(",") if gpu.strip()]
    import torch  # only here: it takes seconds to load

    return [str(number) for number in range(torch.cuda.device_count())]


def count() -> int:
    """The number of jobs that can each have their own GPU; 1 on a machine without GPUs."""
    return max(len(visible()), 1)


@cache  # a worker keeps what it has taken for all its jobs
def take(n_workers: int, folder: str) -> str:
    """The GPU of this worker: that of the first of `n_workers` places that is not locked.

    Workers beyond the number of GPUs share them in turn.

    Args:
        n_workers: the largest number of workers at a time.
        folder: the sweep's folder, for the locks; a lock ends with its process.

    Raises:
        InputError: `n_workers` is less than 1.

    Returns:
        A value of CUDA_VISIBLE_DEVICES; empty on a machine without a GPU.
    """
    if n_workers < 1:
        raise InputError(
            f"hydra.launcher.n_jobs={n_workers}: expected the number of jobs at a time, 1 or more"
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
        time.sleep(0.1)  # the worker that this one replaces has not ended yet
