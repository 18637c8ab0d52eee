"""Many faults in one test: crashes at each named point, and load under kills; and the proof that these can fail."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from chicory.faultpoints import FAULT_EXIT, FAULT_VARIABLE, FaultPoint
from chicory.message import TaskState
from chicory.testing.clock import eventually
from chicory.testing.faults.chaos import Plan, Verdict, app_on, run_chaos
from chicory.testing.faults.ground import FaultGround
from chicory.testing.faults.workload import SABOTAGE_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from chicory.app import Chicory
    from chicory.result import AsyncResult
    from chicory.testing.faults.ground import TwoStores
    from chicory.testing.faults.ledger import Ledger
    from chicory.testing.faults.workers import Workers

__all__ = ["Sweeps"]

_SEED = int(os.environ.get("FAULTS_SEED", "1"))
_SABOTAGE = "chicory.testing.faults.sabotage"
_OF_PRODUCERS = (FaultPoint.BEFORE_PUBLISH, FaultPoint.AFTER_PUBLISH)
_OF_TWO_STORES = (FaultPoint.BETWEEN_STORE_AND_SETTLE, FaultPoint.AFTER_SETTLE)
_TASKS = {"at_least_once": ("flaky", 1), "at_most_once": ("once", 0.0)}
_TASKS_IN_DRAIN = {"at_least_once": ("work", 3.0), "at_most_once": ("once", 3.0)}
_CROSSED = [
    (point, mode)
    for point in FaultPoint
    for mode in _TASKS
    if point not in (*_OF_PRODUCERS, FaultPoint.BETWEEN_STORE_AND_SETTLE)
    if (point, mode) != (FaultPoint.BEFORE_RECORD, "at_least_once")  # such a task is never there
]
_BEATS = {"CHICORY_WORKER_HEARTBEAT_INTERVAL": "0.3", "CHICORY_WORKER_HEARTBEAT_TTL": "1"}


class Sweeps(FaultGround):
    """Part of the `FaultSuite`. ``FAULTS_SEED`` in the environment gives the chaos run another seed."""

    @pytest.mark.parametrize(("point", "mode"), _CROSSED)
    async def test_a_crash_at_any_point_loses_nothing_and_doubles_nothing_that_had_ended(
        self, app: Chicory, workers: Workers, ledger: Ledger, point: FaultPoint, mode: str
    ) -> None:
        await self._crash_and_go_on(app, workers, ledger, point, mode)

    @pytest.mark.parametrize("mode", list(_TASKS))
    @pytest.mark.parametrize("point", _OF_TWO_STORES)
    async def test_a_crash_between_two_stores_loses_nothing_and_doubles_nothing_that_had_ended(
        self, tmp_path: Path, ledger: Ledger, two_stores: TwoStores, point: FaultPoint, mode: str
    ) -> None:
        settings, _, _ = two_stores
        with self.workers_on(settings, tmp_path, ledger, lease=self.lease) as workers:
            async with app_on(settings) as app:
                await self._crash_and_go_on(app, workers, ledger, point, mode)

    @pytest.mark.parametrize("point", _OF_PRODUCERS)
    async def test_what_a_producer_sends_again_after_a_crash_runs_once(
        self, app: Chicory, workers: Workers, ledger: Ledger, settings: Mapping[str, str], point: FaultPoint
    ) -> None:
        await workers.start()
        command = [sys.executable, "-m", "chicory.testing.faults.producer", "8"]
        known = {**os.environ, **settings}

        died = await asyncio.create_subprocess_exec(*command, env={**known, FAULT_VARIABLE: f"{point}:4"})
        assert await died.wait() == FAULT_EXIT
        await eventually(lambda: self.is_empty(app), within=20)
        sent = {fact.task_id for fact in ledger.facts("start")}
        assert sent == {f"p{number}" for number in range(4 if point is FaultPoint.AFTER_PUBLISH else 3)}
        again = await asyncio.create_subprocess_exec(*command, env=known)
        assert await again.wait() == 0

        await eventually(lambda: self.is_empty(app), within=20)
        assert sorted(fact.task_id for fact in ledger.facts("start")) == [f"p{number}" for number in range(8)]

    async def _crash_and_go_on(self, app: Chicory, workers: Workers, ledger: Ledger, point: FaultPoint, mode: str) -> None:
        """Let a worker die at *point*, and another take over: all ends, and nothing runs that had ended."""
        task, argument = (_TASKS_IN_DRAIN if point is FaultPoint.IN_DRAIN else _TASKS)[mode]
        results = await self._crash(app, workers, ledger, point, task, argument)
        ended = {result.task_id for result in results if await result.ready()}
        before = len(ledger.facts("start"))

        await workers.start(1, **_BEATS)

        await eventually(lambda: self._all_ended(app, results), within=40)
        await eventually(lambda: self.is_empty(app), within=20)
        starts = ledger.facts("start")
        assert not ended & {fact.task_id for fact in starts[before:]}, "what had ended for its caller ran again"
        if mode == "at_most_once":
            assert len({fact.task_id for fact in starts}) == len(starts), "a task at most once started twice"
        else:
            assert {fact.task_id for fact in starts} == {result.task_id for result in results}
            assert {(await result.info()).state for result in results} == {TaskState.SUCCESS}

    async def _crash(
        self, app: Chicory, workers: Workers, ledger: Ledger, point: FaultPoint, task: str, argument: float
    ) -> list[AsyncResult[Any]]:
        """Let a worker die at *point* while it runs these tasks; what became of them."""
        is_drain = point is FaultPoint.IN_DRAIN
        fault = f"{point}:{1 if is_drain else 2}"
        (victim,) = await workers.start(1, CHICORY_WORKER_CONCURRENCY="2", **_BEATS, **{FAULT_VARIABLE: fault})
        results = await self.send_many(app, 6, task, argument)
        if is_drain:
            await self.starts(ledger, 2)
            victim.signal(signal.SIGTERM)
        while victim.exit_code is None:  # some points are passed only when there is more to do
            results.append(await self.send(app, task, argument))
            await asyncio.sleep(0.1)
        assert victim.exit_code == FAULT_EXIT
        return results

    async def _all_ended(self, app: Chicory, results: list[AsyncResult[Any]]) -> bool:
        assert app.backend is not None
        await app.backend.cleanup_stale_clients(stale_seconds=1)
        return all(await asyncio.gather(*(result.ready() for result in results)))

    # --- load under faults -----------------------------------------------------------------------

    @pytest.mark.timeout(180)
    async def test_five_thousand_tasks_under_kills_and_stops(self, tmp_path: Path, settings: Mapping[str, str]) -> None:
        plan = Plan(tasks=5000, workers=3, kills=5, stops=2, seed=_SEED, settings=dict(settings))

        verdict = await run_chaos(plan, tmp_path)

        print(verdict)  # noqa: T201 - seed and timeline, shown if it fails
        assert verdict.is_good
        assert [fault.what for fault in verdict.timeline].count("SIGKILL") == 5

    @pytest.mark.timeout(180)
    async def test_twenty_kills_at_random_instants_under_load(self, tmp_path: Path, settings: Mapping[str, str]) -> None:
        plan = Plan(tasks=4000, workers=4, kills=20, stops=0, seed=_SEED, settings=dict(settings))

        verdict = await run_chaos(plan, tmp_path)

        print(verdict)  # noqa: T201 - likewise
        assert verdict.is_good

    # --- negative controls -----------------------------------------------------------------------

    async def sabotaged(self, tmp_path: Path, settings: Mapping[str, str], plan: Plan, **sabotage: str) -> Verdict:
        """The verdict on workers from which a guarantee was taken."""
        verdict = await run_chaos(replace(plan, settings={**settings, **sabotage}), tmp_path)
        print(verdict)  # noqa: T201 - shown if nothing is found
        return verdict

    @pytest.mark.timeout(180)
    async def test_without_renewal_there_are_duplicates(self, tmp_path: Path, settings: Mapping[str, str]) -> None:
        plan = Plan(tasks=600, workers=3, kills=0, stops=0, seed=_SEED, lease=1.0, long=0.02)

        verdict = await self.sabotaged(tmp_path, settings, plan, **{SABOTAGE_VARIABLE: f"{_SABOTAGE}:renewal_off"})

        assert verdict.audit.extra_runs > 0
        assert any(problem.startswith("I2") for problem in verdict.audit.problems)

    @pytest.mark.timeout(180)
    async def test_without_the_fence_a_late_result_stands(
        self, tmp_path: Path, settings: Mapping[str, str], fence_off: Mapping[str, str]
    ) -> None:
        plan = Plan(tasks=2500, workers=3, kills=0, stops=6, seed=_SEED)

        verdict = await self.sabotaged(tmp_path, settings, plan, **fence_off)

        assert any(problem.startswith("I4") for problem in verdict.audit.problems)

    @pytest.mark.timeout(180)
    async def test_with_a_settle_in_two_steps_tasks_are_lost(self, tmp_path: Path, settings: Mapping[str, str]) -> None:
        plan = Plan(tasks=2500, workers=4, kills=10, stops=0, seed=_SEED)

        verdict = await self.sabotaged(tmp_path, settings, plan, **{SABOTAGE_VARIABLE: f"{_SABOTAGE}:settle_in_two_steps"})

        assert any(problem.startswith("I1") for problem in verdict.audit.problems)
