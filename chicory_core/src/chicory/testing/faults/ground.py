"""What every test of the fault suite stands on: a place for messages, workers, a ledger, and a producer."""

from __future__ import annotations

import asyncio
import os
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from chicory.app import Chicory
from chicory.message import TaskState
from chicory.testing.clock import eventually
from chicory.testing.faults.chaos import app_on
from chicory.testing.faults.ledger import Ledger
from chicory.testing.faults.workers import Workers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from chicory.result import AsyncResult

__all__ = ["FaultGround", "Outage", "TwoStores"]

Outage = AbstractContextManager[object]
"""While it is held, a broker or a backend does not answer."""

TwoStores = tuple["Mapping[str, str]", "Callable[[], Outage]", "Callable[[], Outage]"]
"""Settings for a broker and a backend that fail apart, and an outage of each: of the broker, of the backend."""


class FaultGround:
    """Fixtures and steps. Inherit `FaultSuite`, and give `settings`."""

    lease = 1.5
    """Seconds: of each worker that is started."""
    sweep = 1.0
    """Seconds: the longest that an idle worker looks away."""
    outage_seconds = float(os.environ.get("FAULTS_OUTAGE_SECONDS", "6"))
    """Seconds: for how long a store is away."""
    has_own_clock = True
    """The store has a clock of its own, so that the clock of a worker's host may be wrong."""

    @pytest.fixture
    def settings(self) -> Mapping[str, str]:
        """Environment variables that say where messages and results go: ``CHICORY_BROKER_URL``, perhaps more."""
        raise TypeError(f"{type(self).__name__} must give the fixture `settings`")

    @pytest.fixture
    def two_stores(self) -> TwoStores:
        """A broker and a backend that fail apart."""
        pytest.skip("gives no fixture `two_stores`")

    @pytest.fixture
    def fence_off(self) -> Mapping[str, str]:
        """Environment variables that take the store's fence away in a worker, through ``FAULTS_SABOTAGE``."""
        pytest.skip("gives no fixture `fence_off`")

    # --- what is made of them --------------------------------------------------------------------

    @pytest.fixture
    def ledger(self, tmp_path: Path) -> Iterator[Ledger]:
        ledger = Ledger(tmp_path / "ledger.jsonl")
        yield ledger
        ledger.close()

    @pytest.fixture
    def workers(self, tmp_path: Path, ledger: Ledger, settings: Mapping[str, str]) -> Iterator[Workers]:
        with self.workers_on(settings, tmp_path, ledger, lease=self.lease) as workers:
            yield workers

    @pytest.fixture
    async def app(self, settings: Mapping[str, str]) -> AsyncIterator[Chicory]:
        """The producer's: it knows no task's code."""
        async with app_on(settings) as app:
            yield app

    @contextmanager
    def workers_on(self, settings: Mapping[str, str], folder: Path, ledger: Ledger, *, lease: float) -> Iterator[Workers]:
        """Workers with these *settings*, under a lease of that many seconds; they end with the block."""
        workers = Workers(folder, ledger, {"CHICORY_WORKER_LEASE_SECONDS": str(lease), **settings})
        try:
            yield workers
        finally:
            workers.end()

    # --- steps -----------------------------------------------------------------------------------

    async def send(self, app: Chicory, task: str, *args: object, **options: Any) -> AsyncResult[Any]:
        """Send ``faults.<task>``."""
        return await app.send_task(f"faults.{task}", list(args), **options)

    async def send_many(self, app: Chicory, count: int, task: str, *args: object) -> list[AsyncResult[Any]]:
        return list(await asyncio.gather(*(self.send(app, task, *args) for _ in range(count))))

    async def values(self, results: Sequence[AsyncResult[Any]], within: float = 60.0) -> list[Any]:
        """What the tasks return, in order."""
        return list(await asyncio.wait_for(asyncio.gather(*(result.get() for result in results)), within))

    async def starts(self, ledger: Ledger, count: int, within: float = 20.0) -> None:
        """Return once there were *count* starts."""
        await eventually(lambda: len(ledger.facts("start")) >= count, within=within)

    async def is_at_work(self, result: AsyncResult[Any], deliveries: int = 1) -> bool:
        """Whether the store knows that the task runs: or its worker might be stopped in the very write that says so."""
        info = await result.info()
        return info.state is TaskState.STARTED and info.delivery_count == deliveries

    async def is_empty(self, app: Chicory) -> bool:
        stats = await app.broker.stats()
        return not stats.ready + stats.delayed + stats.running
