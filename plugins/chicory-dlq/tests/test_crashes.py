"""Workers and replayers that die at each step: nothing is lost, nothing is there twice.

``CHICORY_TEST_FAULTS=all`` crosses every step with every broker; without it each step, and each broker, comes once.
"""

import asyncio
import os
import sys

import pytest

from chicory import Chicory, TaskFailedError, TaskState
from chicory.testing import eventually
from chicory.testing.faults.ledger import Ledger
from chicory.testing.faults.workers import WORKLOAD, Workers
from chicory_dlq import DeadLetters

FAULT_VARIABLE, FAULT_EXIT = "CHICORY_FAULT", 137
WITHIN = 50
LEASE = "1.5"

pytestmark = pytest.mark.timeout(180)


class Ground:
    """A place for messages, workers with a ledger, and the producer's app."""

    def __init__(self, where, folder):
        variables = {"broker": "CHICORY_BROKER_URL", "backend": "CHICORY_BACKEND_URL"}
        self.settings = {variables[name]: value for name, value in where.items()}
        self.ledger = Ledger(folder / "ledger.jsonl")
        self.folder = folder
        self.workers = Workers(folder, self.ledger, {"CHICORY_WORKER_LEASE_SECONDS": LEASE, **self.settings})
        self.app = Chicory(**where)
        self.letters = self.app.require(DeadLetters)

    async def send(self, count, task, *args):
        return [await self.app.send_task(f"faults.{task}", list(args)) for _ in range(count)]

    async def is_idle(self):
        stats = await self.app.broker.stats()
        return not stats.ready + stats.delayed + stats.running

    async def died(self, results):
        """The ids of those that say so."""
        return {r.task_id for r in results if await r.state() is TaskState.DEAD_LETTERED}

    def end(self):
        self.workers.end()
        self.ledger.close()


@pytest.fixture
def ground(place_of, broker, tmp_path):
    ground = Ground(place_of(broker), tmp_path)
    yield ground
    ground.end()


async def test_a_worker_that_dies_while_it_sets_aside_loses_and_doubles_nothing(ground, step):
    async with ground.app:
        options = {"CHICORY_WORKER_CONCURRENCY": "2", FAULT_VARIABLE: f"{step}:4"}
        (victim,) = await ground.workers.start(1, "--dlq", **options)
        results = await ground.send(6, "hopeless")
        while victim.exit_code is None:  # some steps are passed only when there is more to do
            results += await ground.send(1, "hopeless")
            await asyncio.sleep(0.1)
        assert victim.exit_code == FAULT_EXIT
        ended = await ground.died(results)
        before = len(ground.ledger.facts("start"))

        await ground.workers.start(1, "--dlq")

        everything = {result.task_id for result in results}
        await eventually(lambda: _are(ground.died(results), everything), within=WITHIN)
        await eventually(ground.is_idle, within=WITHIN)
        listed = [letter.id async for letter in ground.letters.each()]
        assert sorted(listed) == sorted(everything)
        again = {fact.task_id for fact in ground.ledger.facts("start")[before:]}
        assert not ended & again, "what had died for its caller ran again"
        for letter in [letter async for letter in ground.letters.each()]:
            assert (letter.death.reason, letter.death.error_type) == ("retries_exhausted", "ValueError")


async def _are(found, expected):
    return await found == expected


async def test_a_replayer_that_is_killed_has_moved_each_or_left_it(ground):
    async with ground.app:
        (worker,) = await ground.workers.start(1, "--dlq", FAULTS_WITHOUT="faults.add", CHICORY_WORKER_UNKNOWN_TASK_SECONDS="0")
        results = await ground.send(40, "add", 1, 2)
        await eventually(lambda: _are(ground.died(results), {r.task_id for r in results}), within=WITHIN)
        worker.kill()
        known = {name: value for name, value in os.environ.items() if not name.startswith("CHICORY_")}

        replayer = await asyncio.create_subprocess_exec(
            *[sys.executable, "-m", "chicory", "dlq", "replay", WORKLOAD, "--all", "--rate", "20"],
            cwd=ground.folder,
            env={**known, **ground.settings},
            stdout=asyncio.subprocess.DEVNULL,
        )
        await eventually(lambda: _has_begun(ground), within=WITHIN)
        replayer.kill()
        await replayer.wait()

        left = await ground.letters.count()
        assert 0 < left < 40
        assert (await ground.app.broker.stats()).ready == 40 - left
        assert await ground.letters.replay_many() == left
        await ground.workers.start(1, "--dlq")
        assert await asyncio.wait_for(asyncio.gather(*results), WITHIN) == [3] * 40
        assert await ground.letters.count() == 0


async def _has_begun(ground):
    return (await ground.app.broker.stats()).ready


class Killed(BaseException):
    """The replayer is gone."""


@pytest.mark.parametrize("step", ["before the record", "before the move", "after the move"])
async def test_a_replay_that_ends_at_any_step_is_made_up_for_by_the_next(app, letters, work, step, monkeypatch):
    """In process, since no fault point lies there: what a step left behind is all that the next replayer finds."""
    fails = True

    @app.task(name="t")
    async def t(n: int) -> int:
        if fails:
            raise OSError
        return n

    async with app:
        async with work(app):
            results = [await t.delay(n) for n in range(5)]
            for result in results:
                with pytest.raises(TaskFailedError):
                    await asyncio.wait_for(result.get(), WITHIN)
        target = {
            "before the record": (letters._records, "before_replay"),
            "before the move": (type(app.broker), "move"),
            "after the move": (letters._records, "after_replay"),
        }[step]

        async def die(*_arguments):
            raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(type(target[0]) if step != "before the move" else target[0], target[1], die)
            with pytest.raises(Killed):
                await letters.replay_many()

        left = await letters.count()
        assert left == (0 if step == "after the move" else 5)
        fails = False
        assert await letters.replay_many() == left
        async with work(app):
            assert await asyncio.wait_for(asyncio.gather(*results), WITHIN) == list(range(5))
        assert await letters.count() == 0
