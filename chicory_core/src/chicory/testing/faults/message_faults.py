"""Faults that come with messages: they kill, cannot be read, are of another version, come at once, or twice."""

from __future__ import annotations

import asyncio
import resource
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from chicory.errors import TaskFailedError
from chicory.message import TaskState, new_id
from chicory.testing.builders import an_envelope
from chicory.testing.clock import eventually
from chicory.testing.faults.chaos import app_on
from chicory.testing.faults.ground import FaultGround

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from chicory.app import Chicory
    from chicory.testing.faults.ground import TwoStores
    from chicory.testing.faults.ledger import Fact, Ledger
    from chicory.testing.faults.workers import Workers

__all__ = ["MessageFaults"]

_MEMORY = 3 * 512 * 1024**2


def _limit_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))


class MessageFaults(FaultGround):
    """Part of the `FaultSuite`."""

    @pytest.mark.timeout(120)
    @pytest.mark.parametrize("how", ["exit", "segfault", "memory"])
    async def test_a_task_that_kills_its_worker_is_rejected_and_its_neighbours_are_unharmed(
        self, app: Chicory, workers: Workers, ledger: Ledger, how: str
    ) -> None:
        workers.begin("--workers", "2", "--concurrency", "20", preexec=_limit_memory if how == "memory" else None)
        neighbours = await self.send_many(app, 60, "work", 0.7)
        await self.starts(ledger, 30, within=30)
        poison = await self.send(app, "die", how, priority=9)

        while not await poison.ready():
            if (await app.broker.stats()).ready < 80:  # so that a worker that has just started is full at once
                neighbours += await self.send_many(app, 60, "work", 0.7)
            await asyncio.sleep(0.2)

        with pytest.raises(TaskFailedError, match="delivered 5 times and never settled") as caught:
            await poison.get(timeout=5)
        assert caught.value.error_type == "DeliveryLimitError"
        await self.values(neighbours)
        deaths = [fact for fact in ledger.facts("start") if fact.task_id == poison.task_id]
        assert len(deaths) == 5
        beside = [self._killed_beside(ledger, death) for death in deaths]
        assert min(beside) >= 15, "so many were in flight in its process, each time that it struck"

    def _killed_beside(self, ledger: Ledger, death: Fact) -> int:
        """How many others ran in the process in which *death* began, and did not end."""
        facts = [fact for fact in ledger.facts() if fact.pid == death.pid and fact.task_id != death.task_id]
        started = Counter(fact.kind for fact in facts)
        return started["start"] - started["end"] - started["cancelled"] - started["failed"]

    async def test_a_task_that_kills_its_worker_once_comes_to_its_end_elsewhere(
        self, app: Chicory, workers: Workers, ledger: Ledger
    ) -> None:
        await workers.start(2)

        result = await self.send(app, "die", "exit", 1)

        assert await result.get(timeout=20) == "survived"
        assert len(ledger.facts("start")) == 2

    async def test_what_cannot_be_read_ends_among_a_thousand_good_ones(
        self, app: Chicory, workers: Workers, ledger: Ledger
    ) -> None:
        whole = an_envelope(id=new_id()).body
        bodies = [b"", b"\x00\xff\xfe", b"{", b"[]", b"null", whole[: len(whole) // 2], whole[:-1], whole + b"}", b"{}" * 9]
        broken = [an_envelope(id=new_id(), body=body) for body in bodies]
        good = await self.send_many(app, 500, "work")
        await (await app.client()).connection.joined.publish(broken)
        good += await self.send_many(app, 500, "work")

        (worker,) = await workers.start()

        await self.values(good)
        await eventually(lambda: self.is_empty(app), within=20)
        assert worker.exit_code is None
        assert len(ledger.facts("start")) == 1000

    async def test_a_task_that_a_worker_does_not_know_yet_waits_for_one_that_does(
        self, app: Chicory, workers: Workers, ledger: Ledger
    ) -> None:
        old = {"FAULTS_WITHOUT": "faults.add"}
        await workers.start(1, **old)
        result = await self.send(app, "add", 20, 22)
        await eventually(lambda: any(worker.said("unknown_task_put_back") for worker in workers.all))
        assert not await result.ready()

        await workers.start(1)  # the new version, beside the old one

        assert await result.get(timeout=30) == 42
        info = await result.info()
        assert (info.retries, info.state) == (0, TaskState.SUCCESS)

    async def test_a_task_that_no_worker_knows_fails_in_the_end(self, app: Chicory, workers: Workers) -> None:
        await workers.start(1, FAULTS_WITHOUT="faults.add", CHICORY_WORKER_UNKNOWN_TASK_SECONDS="1")

        with pytest.raises(TaskFailedError) as caught:
            await (await self.send(app, "add", 20, 22)).get(timeout=30)

        assert caught.value.error_type == "TaskNotFoundError"

    async def test_versions_of_one_task_side_by_side_lose_nothing(self, app: Chicory, workers: Workers) -> None:
        """Arguments that fit both versions run on both; those that do not fit end as failures, on the first try."""
        await workers.start(1)
        await workers.start(1, FAULTS_ADD_TAKES="3")
        both = [await self.send(app, "add", n, 1) for n in range(200)]
        new = [await self.send(app, "add", n, 1, 1) for n in range(100)]

        assert await self.values(both) == [n + 1 for n in range(200)]
        answers = await asyncio.gather(*(r.get(timeout=30) for r in new), return_exceptions=True)

        assert all(answer == n + 2 or isinstance(answer, TaskFailedError) for n, answer in enumerate(answers))
        kinds = {answer.error_type for answer in answers if isinstance(answer, TaskFailedError)}
        assert kinds <= {"ValidationError"}
        assert {(await result.info()).retries for result in new} == {0}

    async def test_a_result_that_cannot_be_encoded_fails_its_task_once(
        self, app: Chicory, workers: Workers, ledger: Ledger
    ) -> None:
        await workers.start()

        with pytest.raises(TaskFailedError) as caught:
            await (await self.send(app, "unencodable")).get(timeout=20)

        assert caught.value.error_type == "EncodingError"
        assert len(ledger.facts("start")) == 1

    async def test_ten_thousand_delayed_tasks_due_in_one_second_all_run_and_none_early(
        self, app: Chicory, workers: Workers, ledger: Ledger
    ) -> None:
        await workers.start(2)
        due = datetime.now(UTC) + timedelta(seconds=8)
        due_at = time.monotonic() + 8
        results = []
        for _ in range(100):
            results += await asyncio.gather(*(self.send(app, "work", eta=due) for _ in range(100)))
        assert time.monotonic() < due_at, "they were all sent before they are due"

        await self.starts(ledger, 10_000, within=60)

        starts = ledger.facts("start")
        assert len({fact.task_id for fact in starts}) == len(starts) == 10_000
        assert min(fact.at for fact in starts) >= due_at - 0.01
        await eventually(lambda: self.is_empty(app), within=20)

    async def test_a_worker_whose_clock_is_ten_minutes_off_starts_nothing_early(
        self, app: Chicory, workers: Workers, ledger: Ledger
    ) -> None:
        if not self.has_own_clock:
            pytest.skip("the store's clock is that of the one host that all its processes share")
        await workers.start(1, FAULTS_SABOTAGE="chicory.testing.faults.sabotage:clock_ahead")
        await workers.start(1)
        held = await self.send(app, "work", 2 * self.lease)
        later = await self.send(app, "work", countdown=3.0)
        sent_at = time.monotonic()

        await self.values([held, later])

        starts = {fact.task_id: fact.at for fact in ledger.facts("start")}
        assert len(ledger.facts("start")) == 2
        assert starts[later.task_id] - sent_at >= 2.9, "three seconds, and a clock's grain"

    async def test_a_publish_that_is_repeated_is_one_task(
        self, app: Chicory, workers: Workers, ledger: Ledger, settings: Mapping[str, str]
    ) -> None:
        await workers.start(2)
        async with app_on(settings) as other:
            repeats = [self.send(one, "work", 0.05, task_id="one-and-only") for one in (app, other) for _ in range(50)]

            results = await asyncio.gather(*repeats)

            assert len({await result.get(timeout=20) for result in results}) == 1
            again = await self.send(other, "work", 0.05, task_id="one-and-only")
            await again.get(timeout=20)
        assert len(ledger.facts("start")) == 1

    # --- stores that are away --------------------------------------------------------------------

    @pytest.mark.parametrize("which", ["broker", "backend"])
    async def test_a_store_that_is_away_costs_no_second_run(
        self, tmp_path: Path, ledger: Ledger, two_stores: TwoStores, which: str
    ) -> None:
        """Leases are long here: a broker that is away for longer than a lease costs what runs, as everywhere."""
        settings, broker_away, backend_away = two_stores
        with self.workers_on(settings, tmp_path, ledger, lease=3 * self.outage_seconds) as workers:
            async with app_on(settings) as app:
                (worker,) = await workers.start(1, "--concurrency", "20")
                results = await self.send_many(app, 20, "work", 1.0)
                await self.starts(ledger, 20)
                with (broker_away if which == "broker" else backend_away)():
                    await asyncio.sleep(self.outage_seconds)
                    assert len(ledger.facts("end")) == 20, "they finished meanwhile"
                assert set(await self.values(results)) == {worker.pid}
                assert len(ledger.facts("start")) == 20
                more: list[Any] = await self.send_many(app, 20, "work")
                await self.values(more)
