"""The fault suite on the embedded default: one file, which all processes of the host share."""

import asyncio
import resource
import sqlite3
from contextlib import contextmanager
from pathlib import Path

import pytest

from chicory.testing import FaultSuite, eventually
from chicory.testing.faults.workload import SABOTAGE_VARIABLE

_SABOTAGE = "chicory.testing.faults.sabotage:worker_fence_off,fence_off:fence_off"


@contextmanager
def _locked(path):
    """As a process would that was stopped in a transaction: nobody else can write."""
    locker = sqlite3.connect(path, isolation_level=None, timeout=30)
    try:
        locker.execute("BEGIN IMMEDIATE")
        yield
        locker.execute("ROLLBACK")
    finally:
        locker.close()


class TestSqliteFaults(FaultSuite):
    has_own_clock = False

    @pytest.fixture
    def settings(self, tmp_path):
        return {"CHICORY_BROKER_URL": f"sqlite:///{tmp_path}/chicory.db", "CHICORY_BROKER_SQLITE_LOCK_SECONDS": "1"}

    @pytest.fixture
    def two_stores(self, tmp_path):
        messages, results = tmp_path / "messages.db", tmp_path / "results.db"
        settings = {"CHICORY_BROKER_URL": f"sqlite:///{messages}", "CHICORY_BACKEND_URL": f"sqlite:///{results}"}
        short = {"CHICORY_BROKER_SQLITE_LOCK_SECONDS": "1", "CHICORY_BACKEND_SQLITE_LOCK_SECONDS": "1"}
        return {**settings, **short}, lambda: _locked(messages), lambda: _locked(results)

    @pytest.fixture
    def fence_off(self):
        return {SABOTAGE_VARIABLE: _SABOTAGE, "PYTHONPATH": str(Path(__file__).parent)}

    async def test_a_disk_that_takes_no_more_costs_no_second_run(self, app, workers, ledger, tmp_path):
        """A limit on the size of files, which the kernel enforces, stands for the end of a disk."""
        (worker,) = await workers.start(1, "--concurrency", "50", CHICORY_WORKER_LEASE_SECONDS="30")
        results = await self.send_many(app, 50, "work", 1.0)
        await self.starts(ledger, 50)
        for result in results:  # the notes that they run are written
            await eventually(lambda result=result: self.is_at_work(result))
        unlimited = resource.prlimit(worker.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, ((tmp_path / "chicory.db-wal").stat().st_size, unlimited[1]))

        await eventually(lambda: bool(worker.said("settling_blocked")), within=10)
        assert not any(await asyncio.gather(*(result.ready() for result in results)))
        resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, unlimited)

        assert set(await self.values(results)) == {worker.pid}
        assert len(ledger.facts("start")) == 50
        assert worker.exit_code is None
