"""Tasks for worker processes under fault: each tells the ledger when it starts and how it ends.

Run as ``chicory worker chicory.testing.faults.workload:app``, with the broker in ``CHICORY_BROKER_URL``. Other variables change
the worker: ``FAULTS_SABOTAGE=module:function,...`` is called first (a negative control takes a guarantee away there, to see
the proof fail), ``FAULTS_WITHOUT=name,...`` are tasks that it does not know, and with ``FAULTS_ADD_TAKES=3`` it knows a newer
version of ``faults.add``.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import time
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from chicory.app import Chicory
from chicory.context import TaskContext
from chicory.message import DeliveryMode
from chicory.retry import RetryPolicy
from chicory.testing.faults.ledger import LEDGER_VARIABLE, Ledger

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["QUICKLY", "SABOTAGE_VARIABLE", "app"]

SABOTAGE_VARIABLE = "FAULTS_SABOTAGE"
QUICKLY = RetryPolicy(max_retries=20, retry_delay=0.05, max_delay=0.2, jitter=False)

for _wanted in filter(None, os.environ.get(SABOTAGE_VARIABLE, "").split(",")):
    _module, _, _function = _wanted.partition(":")
    getattr(import_module(_module), _function)()

app = Chicory() if "CHICORY_BROKER_URL" in os.environ else Chicory(broker="memory://")
_unknown = os.environ.get("FAULTS_WITHOUT", "").split(",")
_ledger = Ledger.of_environment() if LEDGER_VARIABLE in os.environ else None


@contextmanager
def _noted(ctx: TaskContext) -> Iterator[None]:
    """Says in the ledger that a run starts, and how it ends."""
    assert _ledger is not None, f"{LEDGER_VARIABLE} must name a file"
    how = "failed"
    _ledger.note("start", ctx.task_id, retries=ctx.retries, detail=ctx.task_name)
    try:
        yield
        how = "end"
    except asyncio.CancelledError:
        how = "cancelled"
        raise
    finally:
        _ledger.note(how, ctx.task_id, retries=ctx.retries)


@app.task(name="faults.work")
async def work(ctx: TaskContext, seconds: float = 0.0) -> int:
    """Take *seconds*; the pid that did it."""
    with _noted(ctx):
        await asyncio.sleep(seconds)
    return os.getpid()


@app.task(name="faults.block")
async def block(ctx: TaskContext, seconds: float) -> int:
    """Block the event loop with a call that sleeps."""
    with _noted(ctx):
        time.sleep(seconds)  # noqa: ASYNC251 - the fault
    return os.getpid()


@app.task(name="faults.spin")
async def spin(ctx: TaskContext, seconds: float) -> int:
    """Block the event loop with Python code that computes."""
    with _noted(ctx):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pass
    return os.getpid()


@app.task(name="faults.threaded")
def threaded(ctx: TaskContext, seconds: float) -> int:
    """Take *seconds* of a thread."""
    with _noted(ctx):
        time.sleep(seconds)
    return os.getpid()


@app.task(name="faults.stuck", timeout=0.3)
def stuck(ctx: TaskContext) -> None:
    """Hold a thread for ever."""
    with _noted(ctx):
        time.sleep(3600)


@app.task(name="faults.once", delivery_mode=DeliveryMode.AT_MOST_ONCE)
async def once(ctx: TaskContext, seconds: float = 0.0) -> int:
    """As `work`, at most once."""
    with _noted(ctx):
        await asyncio.sleep(seconds)
    return os.getpid()


@app.task(name="faults.flaky", retry_policy=QUICKLY)
async def flaky(ctx: TaskContext, times: int) -> int:
    """Fail *times* times, then return how often it was tried."""
    with _noted(ctx):
        await asyncio.sleep(0)
        if ctx.retries < times:
            raise ConnectionError("not yet")
    return ctx.retries + 1


@app.task(name="faults.slow_to_fail", retry_policy=QUICKLY)
async def slow_to_fail(ctx: TaskContext, seconds: float) -> int:
    """Take *seconds* and fail, on the first try; the pid that did the second."""
    with _noted(ctx):
        if not ctx.retries:
            await asyncio.sleep(seconds)
            raise ConnectionError("not yet")
    return os.getpid()


@app.task(name="faults.hopeless", retry_policy=RetryPolicy(max_retries=1, retry_delay=0.05, jitter=False))
async def hopeless(ctx: TaskContext) -> None:
    """Fail for good."""
    with _noted(ctx):
        raise ValueError("it never works")


@app.task(name="faults.die")
async def die(ctx: TaskContext, how: str, times: int = 10**6) -> str:
    """End the process, once others run beside it: ``exit``, ``segfault`` or ``memory``, in the first *times* runs."""
    assert _ledger is not None, f"{LEDGER_VARIABLE} must name a file"
    runs = sum(fact.task_id == ctx.task_id for fact in _ledger.facts("start"))
    with _noted(ctx):
        if runs < times:
            await asyncio.sleep(0.2)
            _DEATHS[how]()
    return "survived"


def _fill_memory() -> None:
    """Allocate up to the limit of the address space, and die then as a process dies that the kernel stops for that."""
    hoard: list[bytearray] = []
    try:
        while True:
            hoard.append(bytearray(16 * 1024**2))
    except MemoryError:
        os.kill(os.getpid(), signal.SIGKILL)


_DEATHS: dict[str, Any] = {
    "exit": lambda: os._exit(1),
    "segfault": lambda: ctypes.string_at(0),
    "memory": _fill_memory,
}


@app.task(name="faults.unencodable")
async def unencodable(ctx: TaskContext) -> Any:
    """Return what no serializer can write."""
    with _noted(ctx):
        return object()


def _add(a: int, b: int) -> int:
    """Take two numbers, and nothing else."""
    return a + b


def _add_three(a: int, b: int, c: int = 0) -> int:
    """The next version: callers of the old one are right for it too."""
    return a + b + c


if "faults.add" not in _unknown:
    app.task(name="faults.add")(_add_three if os.environ.get("FAULTS_ADD_TAKES") == "3" else _add)
