"""Faults of worker processes: killed, frozen, blocked, told to end."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

import pytest

from chicory.errors import TaskFailedError
from chicory.message import TaskState
from chicory.testing.clock import eventually
from chicory.testing.faults.ground import FaultGround

if TYPE_CHECKING:
    from chicory.app import Chicory
    from chicory.testing.faults.ledger import Ledger
    from chicory.testing.faults.workers import Workers

__all__ = ["ProcessFaults"]


class ProcessFaults(FaultGround):
    """Part of the `FaultSuite`."""

    async def test_a_task_of_a_killed_worker_runs_again_and_nothing_else_twice(
        self, app: Chicory, workers: Workers, ledger: Ledger
    ) -> None:
        (victim,) = await workers.start(1, "--concurrency", "4")
        held = await self.send_many(app, 2, "work", 60.0)
        done = await self.send_many(app, 20, "work")
        await self.values(done)
        await self.starts(ledger, 22)
        await workers.start(1)

        victim.kill()
        killed_at = time.monotonic()
        await self.starts(ledger, 24, within=self.lease + self.sweep + 5)

        starts = Counter(fact.task_id for fact in ledger.facts("start"))
        assert {starts[r.task_id] for r in held} == {2}
        assert {starts[r.task_id] for r in done} == {1}
        assert ledger.facts("start")[-1].at - killed_at <= self.lease + self.sweep + 2
        for result in held:
            await eventually(partial(self.is_at_work, result, deliveries=2))
        assert {fact.retries for fact in ledger.facts("start")} == {0}, "a lost worker is no retry"

    @pytest.mark.parametrize("task", ["work", "slow_to_fail"])
    async def test_a_worker_frozen_for_three_leases_changes_nothing_when_it_wakes(
        self, app: Chicory, workers: Workers, ledger: Ledger, task: str
    ) -> None:
        """Neither its late result nor its late retry stands."""
        (frozen,) = await workers.start()
        result = await self.send(app, task, 2 * self.lease)
        await eventually(lambda: self.is_at_work(result), within=10)
        frozen.freeze()
        (awake,) = await workers.start()
        await self.starts(ledger, 2, within=3 * self.lease + 5)
        await asyncio.sleep(max(0.0, 3 * self.lease - (time.monotonic() - ledger.facts("frozen")[0].at)))

        frozen.thaw()

        pid = await result.get(timeout=20)
        await eventually(lambda: bool(frozen.said("lease_lost")), within=10)
        info = await result.info()
        if task == "work":
            assert (pid, info.state, info.delivery_count, info.retries) == (awake.pid, TaskState.SUCCESS, 2, 0)
        else:
            assert (info.state, info.retries) == (TaskState.SUCCESS, 1)
            assert [fact.retries for fact in ledger.facts("start")] == [0, 0, 1], "the late retry was refused"

    @pytest.mark.parametrize("task", ["block", "spin"])
    async def test_a_task_that_blocks_the_loop_for_three_leases_runs_once_and_is_named(
        self, app: Chicory, workers: Workers, ledger: Ledger, task: str
    ) -> None:
        both = await workers.start(2)

        result = await self.send(app, task, 3 * self.lease)

        pid = await result.get(timeout=3 * self.lease + 15)
        assert len(ledger.facts("start")) == 1
        assert (await result.info()).delivery_count == 1
        (blocked,) = [worker for worker in both if worker.pid == pid]
        (report,) = blocked.said("loop_blocked")
        assert (report["task"], report["task_id"]) == (f"faults.{task}", result.task_id)
        assert 'workload.py", line' in report["stack"]

    async def test_a_task_of_five_leases_runs_once_beside_idle_rivals(
        self, app: Chicory, workers: Workers, ledger: Ledger
    ) -> None:
        await workers.start(3)

        result = await self.send(app, "work", 5 * self.lease)

        await result.get(timeout=5 * self.lease + 15)
        assert len(ledger.facts("start")) == 1

    async def test_sigterm_finishes_what_runs_and_what_was_received_runs_elsewhere(
        self, app: Chicory, workers: Workers, ledger: Ledger
    ) -> None:
        (leaving,) = await workers.start(1, "--concurrency", "8", CHICORY_WORKER_PREFETCH="32")
        quick = await self.send_many(app, 400, "work")  # it is quick now, and receives ahead
        long = await self.send_many(app, 8, "work", 3.0)
        waiting = await self.send_many(app, 32, "work")
        await self.values(quick)
        await self.starts(ledger, 408)
        (other,) = await workers.start(1, "--concurrency", "8")

        leaving.signal(signal.SIGTERM)
        told_at = time.monotonic()

        assert set(await self.values(waiting)) <= {leaving.pid, other.pid}
        late = [fact for fact in ledger.facts("start") if fact.task_id in {r.task_id for r in waiting}]
        assert max(fact.at for fact in late) - told_at < 2.0 + self.sweep
        assert set(await self.values(long)) == {leaving.pid}
        assert await leaving.ended() == 0
        assert set(Counter(fact.task_id for fact in ledger.facts("start")).values()) == {1}, "nothing ran twice"
        infos = [await result.info() for result in (*long, *waiting)]
        assert {(info.delivery_count, info.retries) for info in infos} == {(1, 0)}

    async def test_a_second_signal_does_not_wait_and_costs_no_retry(
        self, app: Chicory, workers: Workers, ledger: Ledger
    ) -> None:
        (leaving,) = await workers.start(1, "--shutdown-timeout", "60")
        result = await self.send(app, "work", 2.0)
        await self.starts(ledger, 1)

        leaving.signal(signal.SIGTERM)
        await eventually(lambda: bool(leaving.said("worker_draining")))
        leaving.signal(signal.SIGTERM)

        assert await leaving.ended(5) == 0
        assert await result.state() is TaskState.PENDING
        await workers.start()
        await result.get(timeout=20)
        assert ((await result.info()).retries, (await result.info()).delivery_count) == (0, 1)

    async def test_a_third_signal_ends_the_process_and_its_task_runs_elsewhere(
        self, app: Chicory, workers: Workers, ledger: Ledger
    ) -> None:
        (leaving,) = await workers.start(1, "--shutdown-timeout", "60")
        result = await self.send(app, "threaded", 3.0)
        await self.starts(ledger, 1)

        leaving.signal(signal.SIGTERM)
        await eventually(lambda: bool(leaving.said("worker_draining")))
        for number in (signal.SIGINT, signal.SIGTERM):  # two of one kind might arrive as one
            leaving.signal(number)

        assert await leaving.ended(5) in (128 + signal.SIGTERM, 128 + signal.SIGINT)
        (other,) = await workers.start()
        assert await result.get(timeout=20) == other.pid

    async def test_a_container_that_is_stopped_loses_nothing(self, app: Chicory, workers: Workers, ledger: Ledger) -> None:
        """SIGTERM, and SIGKILL ten seconds later: with the time-out that fits, and with one that does not."""
        (fits,) = await workers.start(1, "--shutdown-timeout", "7", "--concurrency", "1")
        await self.send(app, "work", 60.0)
        await self.starts(ledger, 1)
        (too_long,) = await workers.start(1, "--shutdown-timeout", "60", "--concurrency", "1")
        await self.send(app, "work", 60.0)
        await self.starts(ledger, 2)

        for worker in (fits, too_long):
            worker.signal(signal.SIGTERM)
        told_at = time.monotonic()
        await workers.start(1)

        assert await fits.ended(9.5) == 0, "it handed back what it ran, in time"
        await self.starts(ledger, 3, within=2 + self.sweep)
        await asyncio.sleep(max(0.0, told_at + 10 - time.monotonic()))
        too_long.kill()
        await self.starts(ledger, 4, within=self.lease + self.sweep + 2)

    async def test_at_most_once_never_starts_twice(self, app: Chicory, workers: Workers, ledger: Ledger) -> None:
        (victim,) = await workers.start(1, "--heartbeat-interval", "0.3", "--heartbeat-ttl", "1")
        result = await self.send(app, "once", 60.0)
        await self.starts(ledger, 1)
        await workers.start()

        victim.kill()
        assert app.backend is not None
        await eventually(lambda: app.backend.cleanup_stale_clients(stale_seconds=2), within=15)  # type: ignore[union-attr]

        with pytest.raises(TaskFailedError, match="may or may not have finished"):
            await result.get(timeout=5)
        assert len(ledger.facts("start")) == 1

    async def test_a_full_pool_of_stuck_threads_stops_no_async_task(
        self, app: Chicory, workers: Workers, ledger: Ledger
    ) -> None:
        (stuck,) = await workers.start(1, CHICORY_WORKER_THREADS="4", CHICORY_WORKER_CONCURRENCY="16")
        hanging = await self.send_many(app, 4, "stuck")
        await self.starts(ledger, 4)

        beside = await self.send_many(app, 50, "work", 0.01)

        await self.values(beside)
        for result in hanging:
            with pytest.raises(TaskFailedError, match="ran longer than its timeout"):
                await result.get(timeout=15)
        assert await stuck.ended() == 71, "it goes, for its supervisor to start another"
