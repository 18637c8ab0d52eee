"""What the tasks do: the same bodies in every contender, each noted in the `Ledger` when it runs."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from benchmarks.ledger import Ledger

FOLDER = Path(os.environ.get("BENCHMARK_FOLDER", ".")).resolve()
SERVER = os.environ.get("BENCHMARK_SERVER", "")
"""The address of the broker's server."""
PAUSE = 0.05
_STEPS = 20_000

ledger = Ledger(FOLDER)


async def kept(number: int) -> int:
    """Nothing but its result."""
    ledger.ran(number)
    return number


async def ignored(number: int) -> None:
    """Nothing at all."""
    ledger.ran(number)


async def slept(number: int) -> int:
    """Waits, like a call of another service."""
    ledger.begun()
    await asyncio.sleep(PAUSE)
    ledger.ran(number)
    return number


async def carried(number: int, payload: str) -> int:
    """Gets much to read."""
    ledger.ran(number)
    return number if payload else -1


def kept_sync(number: int) -> int:
    ledger.ran(number)
    return number


def ignored_sync(number: int) -> None:
    ledger.ran(number)


def slept_sync(number: int) -> int:
    ledger.begun()
    time.sleep(PAUSE)
    ledger.ran(number)
    return number


def carried_sync(number: int, payload: str) -> int:
    ledger.ran(number)
    return number if payload else -1


def computed(number: int) -> int:
    """Computes for one or two milliseconds, in Python."""
    ledger.begun()
    compute()
    ledger.ran(number)
    return number


async def computed_async(number: int) -> int:
    """For peers that only know async functions."""
    return computed(number)


def compute() -> int:
    value = 1
    for _ in range(_STEPS):
        value = (value * 1_103_515_245 + 12_345) & 0x7FFFFFFF
    return value
