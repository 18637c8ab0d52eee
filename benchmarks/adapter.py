"""What a contender says about itself, and what the workloads ask of it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.probes import Probe

LOT = 100
"""Calls that are gathered, and messages in one bulk call."""
Row = tuple[Any, ...]


@dataclass(frozen=True, kw_only=True)
class About:
    """What the table says of a contender."""

    title: str
    broker: str
    """``sqlite``, ``redis`` or ``nats``: only contenders on the same one are compared."""
    guarantee: str
    """What holds when a worker dies, as it was set up here."""
    at_least_once: bool = True
    role: str = "peer"
    """``ours``, ``peer`` or ``floor``."""
    scale: float = 0.3
    """The share of N that it gets, so that no measurement takes minutes."""


@dataclass(frozen=True, kw_only=True)
class Setup:
    """How the workers of one measurement are started. Workers read it from their environment."""

    processes: int = 1
    concurrency: int = 0
    """0: what this contender is fastest with; -1: its default."""
    tight: bool = True
    """The tightest documented polling, where it polls; else as it comes."""
    results: bool = True
    """Results are wanted: for contenders that have one switch for all tasks."""

    @classmethod
    def from_environment(cls) -> Setup:
        return cls(
            processes=int(os.environ.get("BENCHMARK_PROCESSES", "1")),
            concurrency=int(os.environ.get("BENCHMARK_CONCURRENCY", "0")),
            tight=os.environ.get("BENCHMARK_TIGHT", "1") == "1",
            results=os.environ.get("BENCHMARK_RESULTS", "1") == "1",
        )

    def environment(self) -> dict[str, str]:
        return {f"BENCHMARK_{name.upper()}": str(int(value)) for name, value in asdict(self).items()}

    def tasks(self, fastest: int, default: int) -> int:
        """How many tasks a process runs at once."""
        return {0: fastest, -1: default}.get(self.concurrency, self.concurrency)


class Adapter(ABC):
    """One contender. Kinds of tasks are the names in `benchmarks.tasks`: kept, ignored, slept, threaded, computed, carried."""

    about: ClassVar[About]
    bulk = False
    """Has a call that sends many at once."""
    gathers = False
    """Many of its calls can wait at the same time."""
    threads_apart = False
    """Has async tasks as well as sync ones, so that sync ones are a row of their own."""
    polls = False
    """Looks for results or for work again and again, so that the tight setting and the default are two rows."""

    @abstractmethod
    def commands(self, setup: Setup) -> list[list[str]]:
        """The commands that start its workers."""

    @abstractmethod
    def producer(self, setup: Setup) -> contextlib.AbstractContextManager[Producer]:
        """What sends tasks, connected."""

    @abstractmethod
    def unsettled(self, probe: Probe) -> int:
        """Tasks that are queued or running, as its store knows them."""

    @abstractmethod
    def results(self, probe: Probe) -> int | None:
        """Results that are stored; None if they appear in the same step in which a task stops to be unsettled."""


class Producer(ABC):
    """Sends tasks and waits for their results; all times are seconds."""

    @abstractmethod
    def one_by_one(self, kind: str, rows: Sequence[Row]) -> float: ...

    @abstractmethod
    def gathered(self, kind: str, rows: Sequence[Row]) -> float: ...

    @abstractmethod
    def many(self, kind: str, rows: Sequence[Row]) -> float: ...

    @abstractmethod
    def trip(self, number: int) -> float:
        """From sending one task of the kind ``kept`` to having its result."""


def lots(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    return (rows[start : start + LOT] for start in range(0, len(rows), LOT))


# --- async contenders --------------------------------------------------------------------------


class AsyncAdapter(Adapter):
    """Of a contender whose client is asynchronous; on uvloop if it is installed with it."""

    gathers = True
    threads_apart = True

    @abstractmethod
    def session(self, setup: Setup) -> contextlib.AbstractAsyncContextManager[None]:
        """Connected inside."""

    @abstractmethod
    async def send(self, kind: str, row: Row) -> Any:
        """Send one task; what `wait` needs."""

    @abstractmethod
    async def wait(self, sent: Any) -> Any:
        """The result of what `send` sent."""

    async def send_many(self, kind: str, rows: Sequence[Row]) -> None:
        """One bulk call."""
        raise NotImplementedError

    @contextlib.contextmanager
    def producer(self, setup: Setup) -> Iterator[Producer]:
        runner = _runner()
        connection = _Connection(self.session(setup))
        runner.run(connection.open())
        try:
            yield _AsyncProducer(self, runner)
        finally:
            runner.run(connection.close())


@cache
def _runner() -> asyncio.Runner:
    """One event loop for all sessions of a measurement: what some peers hold cannot move to another."""
    return asyncio.Runner(loop_factory=loop_factory())


class _Connection:
    """A session that is entered and left by one asyncio task, as structured concurrency wants it."""

    def __init__(self, session: contextlib.AbstractAsyncContextManager[None]) -> None:
        self._session, self._is_open, self._ends = session, asyncio.Event(), asyncio.Event()

    async def open(self) -> None:
        self._holder = asyncio.create_task(self._hold())
        opened = asyncio.create_task(self._is_open.wait())
        await asyncio.wait([self._holder, opened], return_when=asyncio.FIRST_COMPLETED)
        if not self._is_open.is_set():
            opened.cancel()
            await self._holder

    async def close(self) -> None:
        self._ends.set()
        await self._holder

    async def _hold(self) -> None:
        async with self._session:
            self._is_open.set()
            await self._ends.wait()


class _AsyncProducer(Producer):
    def __init__(self, adapter: AsyncAdapter, runner: asyncio.Runner) -> None:
        self._adapter, self._runner = adapter, runner

    def one_by_one(self, kind: str, rows: Sequence[Row]) -> float:
        async def run() -> float:
            started = time.perf_counter()
            for row in rows:
                await self._adapter.send(kind, row)
            return time.perf_counter() - started

        return self._runner.run(run())

    def gathered(self, kind: str, rows: Sequence[Row]) -> float:
        async def run() -> float:
            started = time.perf_counter()
            for lot in lots(rows):
                await asyncio.gather(*(self._adapter.send(kind, row) for row in lot))
            return time.perf_counter() - started

        return self._runner.run(run())

    def many(self, kind: str, rows: Sequence[Row]) -> float:
        async def run() -> float:
            started = time.perf_counter()
            for lot in lots(rows):
                await self._adapter.send_many(kind, lot)
            return time.perf_counter() - started

        return self._runner.run(run())

    def trip(self, number: int) -> float:
        async def run() -> float:
            started = time.perf_counter()
            found = await self._adapter.wait(await self._adapter.send("kept", (number,)))
            seconds = time.perf_counter() - started
            if found != number:
                raise RuntimeError(f"the result of {number} is {found!r}")
            return seconds

        return self._runner.run(run())


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if find_spec("uvloop") is None:
        return None
    import uvloop  # noqa: PLC0415 - not every contender has it

    return uvloop.new_event_loop


# --- sync contenders ---------------------------------------------------------------------------


class SyncAdapter(Adapter, Producer):
    """Of a contender whose client blocks: it is its own producer."""

    def __init__(self) -> None:
        self.setup = Setup()

    @abstractmethod
    def send(self, kind: str, row: Row) -> Any:
        """Send one task; what `wait` needs."""

    @abstractmethod
    def wait(self, sent: Any) -> Any:
        """The result of what `send` sent."""

    def send_many(self, kind: str, rows: Sequence[Row]) -> None:
        """One bulk call."""
        raise NotImplementedError

    @contextlib.contextmanager
    def producer(self, setup: Setup) -> Iterator[Producer]:
        self.setup = setup
        yield self

    def one_by_one(self, kind: str, rows: Sequence[Row]) -> float:
        started = time.perf_counter()
        for row in rows:
            self.send(kind, row)
        return time.perf_counter() - started

    def gathered(self, kind: str, rows: Sequence[Row]) -> float:
        raise NotImplementedError

    def many(self, kind: str, rows: Sequence[Row]) -> float:
        started = time.perf_counter()
        for lot in lots(rows):
            self.send_many(kind, lot)
        return time.perf_counter() - started

    def trip(self, number: int) -> float:
        started = time.perf_counter()
        found = self.wait(self.send("kept", (number,)))
        seconds = time.perf_counter() - started
        if found != number:
            raise RuntimeError(f"the result of {number} is {found!r}")
        return seconds


# --- for adapters ------------------------------------------------------------------------------


def script(name: str) -> str:
    """A console script of this environment."""
    return str(Path(sys.executable).with_name(name))


@contextlib.asynccontextmanager
async def nothing() -> AsyncIterator[None]:
    yield


def fill(adapter: Adapter, producer: Producer, kind: str, rows: Sequence[Row]) -> None:
    """Send *rows* in the fastest way there is."""
    how = producer.many if adapter.bulk else producer.gathered if adapter.gathers else producer.one_by_one
    how(kind, rows)


def numbers(n: int, start: int = 0) -> list[Row]:
    return [(number,) for number in itertools.islice(itertools.count(start), n)]
