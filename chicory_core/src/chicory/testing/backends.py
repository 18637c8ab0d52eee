"""``BackendSuite``: every promise of the `Backend` contract as a test. Inherit it, and give ``make_backend``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio

from chicory.backend import Backend
from chicory.message import ResultRecord, TaskState, WorkerStats, new_id
from chicory.testing.builders import a_record
from chicory.testing.stores import PassTime, StoreSuite

__all__ = ["BackendSuite"]

MakeBackend = Callable[[], Backend]

P, S, R, OK, BAD = TaskState.PENDING, TaskState.STARTED, TaskState.RETRY, TaskState.SUCCESS, TaskState.FAILURE

# What is there (state, hop, delivery count), what comes, and whether it is kept.
GUARD = {
    "started after pending": ((P, 0, 0), (S, 0, 1), True),
    "end after started": ((S, 0, 1), (OK, 0, 1), True),
    "progress after started": ((S, 0, 1), (S, 0, 1), True),
    "a later delivery": ((S, 0, 1), (S, 0, 2), True),
    "a former delivery": ((S, 0, 2), (OK, 0, 1), False),
    "a later hop": ((R, 1, 0), (S, 1, 1), True),
    "a former hop": ((R, 1, 0), (BAD, 0, 1), False),
    "a second end of one try": ((OK, 0, 1), (BAD, 0, 1), False),
    "a later try after the end": ((OK, 0, 1), (BAD, 0, 2), False),
    "a replay": ((BAD, 0, 1), (P, 1, 0), True),
    "pending at the same hop": ((BAD, 1, 1), (P, 1, 0), False),
}


def stats_of(worker_id: str, **fields: Any) -> WorkerStats:
    """The heartbeat of a worker that runs."""
    defaults: dict[str, Any] = {"hostname": "host", "pid": 1, "queues": ("default",), "concurrency": 4, "is_running": True}
    return WorkerStats(worker_id=worker_id, last_heartbeat=datetime(2026, 1, 1, tzinfo=UTC), **{**defaults, **fields})


@pytest.mark.asyncio
class BackendSuite(StoreSuite):
    """The contract of a backend.

    A subclass gives the fixture ``make_backend``: a callable that returns a new unopened backend, all on one place that is
    empty at first. A backend with a clock of its own gives ``clock`` (the system's) and a short ``ttl``.
    """

    @pytest.fixture
    def make_backend(self) -> MakeBackend:
        raise TypeError(f"{type(self).__name__} must give the fixture `make_backend`")

    @pytest.fixture
    def ttl(self) -> float:
        """Seconds for which records and heartbeats are kept."""
        return 60.0

    @pytest_asyncio.fixture
    async def backend(self, make_backend: MakeBackend, opened: AsyncExitStack) -> Backend:
        return await opened.enter_async_context(make_backend())

    @pytest_asyncio.fixture
    async def other(self, make_backend: MakeBackend, opened: AsyncExitStack, backend: Backend) -> Backend:
        """Another connection to the same place."""
        return await opened.enter_async_context(make_backend())

    # --- records -------------------------------------------------------------------------------

    @pytest.mark.parametrize("body", [b"", b'{"chicory": 1}', bytes(range(256))], ids=["empty", "json", "binary"])
    async def test_what_is_stored_is_fetched(self, backend: Backend, other: Backend, body: bytes) -> None:
        record = a_record(state=S, hop=2, delivery_count=3, body=body, holder="worker-1")

        assert await backend.store([record]) == [True]

        assert await other.fetch([record.id]) == [record]

    async def test_fetching_keeps_the_order_and_leaves_gaps(self, backend: Backend) -> None:
        first, second = a_record(state=S), a_record(state=S)
        await backend.store([first, second])

        assert await backend.fetch([second.id, "unknown", first.id]) == [second, None, first]

    @pytest.mark.parametrize(("there", "comes", "is_kept"), GUARD.values(), ids=GUARD.keys())
    async def test_late_records_are_refused(
        self, backend: Backend, there: tuple[Any, ...], comes: tuple[Any, ...], is_kept: bool
    ) -> None:
        task_id = new_id()
        before, after = (ResultRecord(id=task_id, state=s, hop=h, delivery_count=c) for s, h, c in (there, comes))
        await backend.store([before])

        assert await backend.store([after]) == [is_kept]

        assert await backend.fetch([task_id]) == [after if is_kept else before]

    async def test_the_guard_holds_within_one_batch(self, backend: Backend) -> None:
        task_id = new_id()
        end, late = (a_record(id=task_id, state=s, delivery_count=c) for s, c in ((OK, 2), (BAD, 1)))

        assert await backend.store([end, late, a_record()]) == [True, False, True]

        assert (await backend.fetch([task_id]))[0] == end

    async def test_many_records_travel_together(self, backend: Backend) -> None:
        records = [a_record(state=S) for _ in range(1500)]

        assert await backend.store(records) == [True] * 1500

        assert await backend.fetch([record.id for record in records]) == records

    async def test_a_record_goes_when_its_time_is_over(self, backend: Backend, ttl: float, pass_time: PassTime) -> None:
        record, lasting = a_record(ttl=ttl), a_record(state=S)
        await backend.store([record, lasting])
        await pass_time(ttl * 0.5)
        assert (await backend.fetch([record.id]))[0] is not None

        await pass_time(ttl * 0.6)

        assert await backend.fetch([record.id, lasting.id]) == [None, lasting]

    async def test_forgetting(self, backend: Backend) -> None:
        record = a_record()
        await backend.store([record])

        assert await backend.delete([record.id, "unknown"]) == 1

        assert await backend.fetch([record.id]) == [None]
        assert await backend.delete([record.id]) == 0

    # --- waiting -------------------------------------------------------------------------------

    async def test_waiting_for_what_has_ended_returns_at_once(self, backend: Backend) -> None:
        record = a_record(body=b"x")
        await backend.store([record])

        assert await asyncio.wait_for(backend.wait(record.id, exists=True), 5) == record

    async def test_waiting_is_pushed_from_another_connection(self, backend: Backend, other: Backend) -> None:
        task_id = new_id()
        await other.store([a_record(id=task_id, state=P, delivery_count=0)])
        waiting = asyncio.ensure_future(backend.wait(task_id, exists=True))
        await other.store([a_record(id=task_id, state=S)])
        done, _ = await asyncio.wait([waiting], timeout=0.05)
        assert not done, "STARTED is not the end"

        await other.store([a_record(id=task_id)])

        assert (await asyncio.wait_for(waiting, 5)).state is OK  # type: ignore[union-attr] # a record

    async def test_many_may_wait_for_one_id(self, backend: Backend, other: Backend) -> None:
        record = a_record()
        waiting = [asyncio.ensure_future(b.wait(record.id, exists=False)) for b in (backend, other) for _ in range(3)]
        await asyncio.sleep(0)

        await other.store([record])

        assert await asyncio.wait_for(asyncio.gather(*waiting), 5) == [record] * 6

    async def test_many_ids_may_be_waited_for(self, backend: Backend, other: Backend) -> None:
        records = [a_record() for _ in range(700)]
        waiting = [asyncio.ensure_future(backend.wait(record.id, exists=False)) for record in records]
        await asyncio.sleep(0)

        await other.store(records)

        assert await asyncio.wait_for(asyncio.gather(*waiting), 10) == records

    async def test_an_unknown_id_that_must_exist_is_gone(self, backend: Backend) -> None:
        assert await asyncio.wait_for(backend.wait("unknown", exists=True), 5) is None

    async def test_a_record_forgotten_while_waited_for_is_gone(self, backend: Backend, other: Backend) -> None:
        record = a_record(state=S)
        await backend.store([record])
        waiting = asyncio.ensure_future(backend.wait(record.id, exists=True))
        await asyncio.wait([waiting], timeout=0.05)

        await other.delete([record.id])

        assert await asyncio.wait_for(waiting, 5) is None

    async def test_one_who_gives_up_leaves_the_others_waiting(self, backend: Backend) -> None:
        record = a_record()
        patient = asyncio.ensure_future(backend.wait(record.id, exists=False))
        await asyncio.sleep(0)
        assert await asyncio.wait_for(backend.wait(record.id, exists=True), 5) is None

        await backend.store([record])

        assert await asyncio.wait_for(patient, 5) == record

    async def test_waiting_can_be_cancelled(self, backend: Backend) -> None:
        record = a_record()
        waiting = asyncio.ensure_future(backend.wait(record.id, exists=False))
        await asyncio.wait([waiting], timeout=0.02)
        waiting.cancel()
        await asyncio.wait([waiting])

        await backend.store([record])

        assert await asyncio.wait_for(backend.wait(record.id, exists=True), 5) == record

    # --- workers -------------------------------------------------------------------------------

    async def test_heartbeats_tell_who_lives(self, backend: Backend, other: Backend, ttl: float, pass_time: PassTime) -> None:
        early, late = stats_of("early"), stats_of("late", tasks_processed=7)
        await backend.beat(early, ttl)
        await pass_time(ttl * 0.6)
        await backend.beat(late, ttl)
        assert await other.heartbeats() == [(early, True), (late, True)]

        await pass_time(ttl * 0.6)

        assert await other.heartbeats() == [(early, False), (late, True)]

    async def test_the_newest_heartbeat_replaces_the_former(self, backend: Backend, ttl: float) -> None:
        await backend.beat(stats_of("w"), ttl)
        stopped = stats_of("w", is_running=False, tasks_failed=3)

        await backend.beat(stopped, ttl)

        assert await backend.heartbeats() == [(stopped, False)]

    async def test_dropping_workers(self, backend: Backend, ttl: float) -> None:
        for name in ("a", "b"):
            await backend.beat(stats_of(name), ttl)

        assert await backend.drop_workers(["a", "unknown"]) == 1

        assert [stats.worker_id for stats, _ in await backend.heartbeats()] == ["b"]
        assert await backend.drop_workers([]) == 0

    async def test_what_a_worker_holds_is_known_until_it_ends(self, backend: Backend) -> None:
        held, ended, free = a_record(state=S, holder="w1"), a_record(state=S, holder="w1"), a_record(state=S)
        await backend.store([held, ended, free])
        await backend.store([a_record(id=ended.id)])

        found = await backend.held()

        assert {worker: list(records) for worker, records in found.items()} == {"w1": [held]}

    async def test_a_backend_that_answers_is_healthy(self, backend: Backend) -> None:
        await backend.health()

    async def test_a_twin_sees_the_same(self, backend: Backend) -> None:
        record = a_record(state=S)
        await backend.store([record])

        async with backend.twin() as twin:
            assert await twin.fetch([record.id]) == [record]
