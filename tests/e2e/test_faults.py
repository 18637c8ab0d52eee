"""What becomes of messages when processes are killed, stopped, frozen or told to end: on the embedded default."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter

import pytest

from chicory import TaskFailedError, TaskState

from .conftest import LEASE, ended, gather, handle, until

pytestmark = pytest.mark.e2e
SWEEP = 1.0
"""The longest that an idle worker looks away."""


async def test_a_task_of_a_killed_worker_runs_again_and_nothing_else_twice(project, start_workers):
    async with project.app() as app:
        first = await start_workers(app, 1, "--concurrency", "4")
        (victim,) = first.values()
        results = [await app.send_task("tasks.note", [60.0]) for _ in range(2)]
        done = [await app.send_task("tasks.note", [0.0]) for _ in range(20)]
        await gather(done)
        await until(lambda: len(project.ledger()) == 22)
        await start_workers(app, 1)

        os.kill(victim.pid, signal.SIGKILL)
        killed_at = time.monotonic()
        await until(lambda: len(project.ledger()) == 24, within=LEASE + SWEEP + 2)
        back_after = time.monotonic() - killed_at

        starts = Counter(task_id for task_id, *_ in project.ledger())
        assert {starts[r.task_id] for r in results} == {2}
        assert {starts[r.task_id] for r in done} == {1}
        assert back_after <= LEASE + SWEEP + 2
        for result in results:  # the note that it runs follows the first thing it does
            await until(lambda result=result: _has_been_delivered(result, 2))
        assert {retries for task_id, _, retries in project.ledger()} == {"0"}, "a lost worker is no retry"


async def test_a_task_that_kills_its_worker_comes_to_its_end_elsewhere(project, start_workers):
    async with project.app() as app:
        await start_workers(app, 2)

        result = await app.send_task("tasks.kill_once")

        assert await result.get(timeout=15) == "survived"


async def test_a_task_that_always_kills_its_worker_is_rejected_and_its_neighbours_are_unharmed(project, start_workers):
    async with project.app() as app:
        project.start("worker", "tasks:app", "--workers", "2", CHICORY_WORKER_LEASE_SECONDS="0.6")
        poison = await app.send_task("tasks.kill_always")
        good = [await app.send_task("tasks.add", [n, 1]) for n in range(50)]

        with pytest.raises(TaskFailedError, match="delivered 5 times and never settled") as caught:
            await poison.get(timeout=30)

        assert caught.value.error_type == "DeliveryLimitError"
        assert len(project.ledger()) == 5
        assert sorted(await gather(good)) == list(range(1, 51))


async def test_sigterm_finishes_what_runs_and_hands_back_the_rest(project, start_workers):
    async with project.app() as app:
        workers = await start_workers(app, 1, "--concurrency", "8")
        (leaving,) = workers.values()
        running = [await app.send_task("tasks.note", [1.5]) for _ in range(8)]
        await until(lambda: len(project.ledger()) == 8)
        waiting = [await app.send_task("tasks.note", [0.0]) for _ in range(32)]
        await start_workers(app, 1, "--concurrency", "8")

        leaving.send_signal(signal.SIGTERM)
        assert await ended(leaving) == 0

        await gather(running + waiting)
        starts = Counter(task_id for task_id, *_ in project.ledger())
        assert set(starts.values()) == {1}, "nothing ran twice"
        assert {(await r.info()).delivery_count for r in running + waiting} == {1}
        assert {(await r.info()).retries for r in running + waiting} == {0}
        assert {pid for task_id, pid, _ in project.ledger("end") if task_id in {r.task_id for r in running}} == {
            str(leaving.pid)
        }


async def test_what_does_not_finish_in_time_runs_elsewhere_without_a_retry_counted(project, start_workers):
    async with project.app() as app:
        (leaving,) = (await start_workers(app, 1, "--shutdown-timeout", "0.5")).values()
        result = await app.send_task("tasks.slow_once")
        await until(lambda: len(project.ledger()) == 1)
        await start_workers(app, 1)

        leaving.send_signal(signal.SIGTERM)
        assert await ended(leaving) == 0

        assert await result.get(timeout=15) != leaving.pid
        info = await result.info()
        assert (info.retries, info.delivery_count, info.hop) == (0, 1, 1)


async def test_a_second_signal_does_not_wait(project, start_workers):
    async with project.app() as app:
        (leaving,) = (await start_workers(app, 1, "--shutdown-timeout", "60")).values()
        result = await app.send_task("tasks.note", [30.0])
        await until(lambda: len(project.ledger()) == 1)

        leaving.send_signal(signal.SIGTERM)
        await until(lambda: "worker_draining" in leaving.log.read_text())
        leaving.send_signal(signal.SIGTERM)

        assert await ended(leaving) == 0
        assert await result.state() is TaskState.PENDING


async def test_a_third_signal_ends_the_process_at_once(project, start_workers):
    async with project.app() as app:
        (leaving,) = (await start_workers(app, 1, "--shutdown-timeout", "60")).values()
        await app.send_task("tasks.block", [30.0])
        threaded = await app.send_task("tasks.threaded", [30.0])
        await until(lambda: project.ledger())

        for _ in range(3):
            leaving.send_signal(signal.SIGINT)
            await asyncio.sleep(0.05)
        leaving.send_signal(signal.SIGKILL) if leaving.poll() is None and await _is_blocked(leaving) else None

        assert await ended(leaving) != 0
        assert not await threaded.ready()


async def _has_been_delivered(result, times):
    return (await result.info()).delivery_count == times


async def _is_blocked(process):
    """A loop that a task blocks cannot hear signals: then the kill of the operator is the only way."""
    try:
        await until(lambda: process.poll() is not None, within=2)
    except AssertionError:
        return True
    return False


async def test_a_blocked_event_loop_keeps_its_lease(project, start_workers):
    async with project.app() as app:
        await start_workers(app, 2)

        result = await app.send_task("tasks.block", [3 * LEASE])

        await result.get(timeout=3 * LEASE + 10)
        assert len(project.ledger()) == 1
        assert (await result.info()).delivery_count == 1


async def test_a_task_of_several_leases_runs_once_beside_idle_rivals(project, start_workers):
    async with project.app() as app:
        await start_workers(app, 3)

        result = await app.send_task("tasks.note", [4 * LEASE])

        await result.get(timeout=4 * LEASE + 10)
        assert len(project.ledger()) == 1


async def test_a_worker_frozen_for_longer_than_its_lease_changes_nothing_when_it_wakes(project, start_workers):
    async with project.app() as app:
        (frozen,) = (await start_workers(app, 1)).values()
        result = await app.send_task("tasks.note", [LEASE * 2])
        await until(lambda: _has_been_delivered(result, 1))  # or it might be frozen in the transaction that says so
        frozen.send_signal(signal.SIGSTOP)
        (awake,) = (await start_workers(app, 1)).values()
        await until(lambda: len(project.ledger()) == 2, within=3 * LEASE + 3)

        frozen.send_signal(signal.SIGCONT)

        assert await result.get(timeout=15) == awake.pid
        info = await result.info()
        assert (info.delivery_count, info.state) == (2, TaskState.SUCCESS)
        await until(lambda: "lease_lost" in frozen.log.read_text())


PUBLISHER = """
import asyncio
from tasks import app, add

async def main():
    async with app:
        while True:
            results = await asyncio.gather(*(add.delay(1, 2) for _ in range(10)))
            with open("accepted.txt", "a") as accepted:
                accepted.write("".join(r.task_id + "\\n" for r in results))

asyncio.run(main())
"""


async def test_what_was_accepted_survives_the_death_of_its_producer(project, start_workers):
    (project.folder / "publisher.py").write_text(PUBLISHER)
    accepted = project.folder / "accepted.txt"
    producer = subprocess.Popen([sys.executable, "publisher.py"], cwd=project.folder, env=project.environment())
    project.processes.append(producer)
    await until(lambda: accepted.exists() and len(accepted.read_text().split()) >= 200)

    producer.kill()
    producer.wait()

    async with project.app() as app:
        await start_workers(app, 1)
        ids = accepted.read_text().split()
        assert await gather([handle(app, task_id) for task_id in ids]) == [3] * len(ids)


async def test_a_process_frozen_in_a_transaction_is_an_error_for_the_others_until_it_goes_on(project, start_workers):
    async with project.app() as app:
        (worker,) = (await start_workers(app, 1, CHICORY_BROKER_SQLITE_LOCK_SECONDS="1")).values()
        result = await app.send_task("tasks.note", [3 * LEASE])
        await until(lambda: len(project.ledger()) == 1)

        locker = sqlite3.connect(project.database, isolation_level=None)
        locker.execute("BEGIN IMMEDIATE")  # as a process that was stopped at this point
        await until(lambda: "lease_renewal_failed" in worker.log.read_text())
        await until(lambda: "lease_lost" in worker.log.read_text(), within=3 * LEASE)
        locker.execute("ROLLBACK")
        locker.close()

        assert await result.get(timeout=20) == worker.pid
        assert len(project.ledger("end")) == 1, "the first try was given up in time"
        assert (await result.info()).delivery_count == 2


async def test_at_most_once_never_starts_twice(project, start_workers):
    async with project.app() as app:
        (victim,) = (await start_workers(app, 1, "--heartbeat-interval", "0.3", "--heartbeat-ttl", "1")).values()
        result = await app.send_task("tasks.once", [60.0])
        await until(lambda: project.ledger())
        await start_workers(app, 1)

        os.kill(victim.pid, signal.SIGKILL)
        await until(lambda: _forgotten(app), within=10)

        with pytest.raises(TaskFailedError, match="may or may not have finished"):
            await result.get(timeout=5)
        assert len(project.ledger()) == 1


async def _forgotten(app):
    return await app.backend.cleanup_stale_clients(stale_seconds=2)


async def test_a_worker_whose_module_does_not_import_takes_no_message(project):
    async with project.app() as app:
        result = await app.send_task("tasks.add", [1, 2])
        (project.folder / "broken.py").write_text("import tasks\nraise RuntimeError('no database password')\n")

        done = project.run("worker", "broken:app")

        assert done.returncode != 0
        assert "no database password" in done.stderr
        assert "Traceback" not in done.stderr
        stats = await app.broker.stats()
        assert (stats.ready, stats.running) == (1, 0)
        assert await result.state() is TaskState.PENDING
