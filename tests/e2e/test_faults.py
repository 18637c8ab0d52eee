"""What becomes of messages when processes are killed, stopped, frozen or told to end: on the embedded default."""

import signal
import sqlite3
import subprocess
import sys

import pytest

from chicory import TaskState

from .conftest import LEASE, ended, gather, handle, until

pytestmark = pytest.mark.e2e


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
