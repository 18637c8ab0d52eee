"""What the floors of several brokers share."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable

from benchmarks.tasks import compute

MESSAGE = b'{"id": "%s", "task": "tasks.add", "args": [1, 2], "retries": 0}' % (b"x" * 140)
"""200 bytes, about what a message of any of the contenders has."""
LOT = 100
_PROCESSES = 2


def compute_rate(n: int) -> dict[str, float]:
    """The work of the CPU-bound tasks, in two bare processes."""
    each = max(20, n // 20)
    with multiprocessing.get_context("spawn").Pool(_PROCESSES) as pool:
        pool.map(_compute, [1] * _PROCESSES)
        started = time.perf_counter()
        pool.map(_compute, [each] * _PROCESSES, chunksize=1)
        return {"cpu_floor": _PROCESSES * each / (time.perf_counter() - started)}


def _compute(times: int) -> None:
    for _ in range(times):
        compute()


def rate(n: int, started: float) -> float:
    return n / (time.perf_counter() - started)


Floor = Callable[[int], dict[str, float]]
