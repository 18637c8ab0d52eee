"""Several processes on one file, under one supervisor or under none."""

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter

import pytest

from chicory.testing import eventually

from .conftest import ended, gather, until

pytestmark = pytest.mark.e2e

PRODUCER = """
import asyncio, sys
from tasks import app, note

async def main():
    async with app:
        results = [await note.delay() for _ in range(25)]
        results += await note.delay_many([()] * 75)
        await asyncio.gather(*results)

asyncio.run(main())
"""


async def test_eight_processes_share_one_file(project, start_workers):
    (project.folder / "producer.py").write_text(PRODUCER)
    async with project.app() as app:
        workers = await start_workers(app, 4, "--concurrency", "8")

        producers = [
            subprocess.Popen(
                [sys.executable, "producer.py"], cwd=project.folder, env=project.environment(), stderr=subprocess.PIPE
            )
            for _ in range(4)
        ]
        project.processes += producers
        errors = [(await asyncio.to_thread(producer.communicate))[1].decode() for producer in producers]

        assert [p.returncode for p in producers] == [0] * 4, errors
        starts = Counter(task_id for task_id, *_ in project.ledger())
        assert (len(starts), set(starts.values())) == (400, {1})
        logs = "".join(errors) + "".join(w.log.read_text() for w in workers.values())
        assert "locked" not in logs
        assert len({pid for _, pid, _ in project.ledger()}) > 1, "the work is shared"


async def test_a_supervisor_keeps_its_workers_alive(project):
    async with project.app() as app:
        supervisor = project.start("worker", "tasks:app", "--workers", "2")
        first = await until(lambda: _pids(app, 2))

        os.kill(min(first), signal.SIGKILL)
        second = await until(lambda: _others(app, first))

        assert second.isdisjoint({min(first)})
        assert supervisor.poll() is None
        assert await (await app.send_task("tasks.add", [1, 2])).get(timeout=10) == 3
        supervisor.send_signal(signal.SIGTERM)
        assert await ended(supervisor) == 0
        assert await app.backend.get_active_workers() == [] or min(first) in {
            w.pid for w in await app.backend.get_active_workers()
        }


async def _pids(app, count):
    pids = {w.pid for w in await app.backend.get_active_workers()}
    return pids if len(pids) == count else None


async def _others(app, former):
    pids = {w.pid for w in await app.backend.get_active_workers()}
    return pids - {min(former)} if len(pids - former) == 1 else None


async def test_workers_whose_supervisor_dies_while_they_start_end_too(project):
    async with project.app() as app:
        supervisor = project.start("worker", "tasks:app", "--workers", "2")
        pids = await until(lambda: _children(supervisor.pid, 2))

        supervisor.kill()

        await until(lambda: not any(_is_alive(pid) for pid in pids))
        assert await app.backend.get_active_workers() == []


def _children(pid, count):
    with open(f"/proc/{pid}/task/{pid}/children") as children:
        found = [int(child) for child in children.read().split()]
    return found if len(found) == count else None


async def test_a_supervisor_forwards_one_signal_and_waits_for_its_workers(project):
    async with project.app() as app:
        supervisor = project.start("worker", "tasks:app", "--workers", "2", "--concurrency", "1")
        await until(lambda: _pids(app, 2))
        results = [await app.send_task("tasks.note", [1.0]) for _ in range(2)]
        await until(lambda: len(project.ledger()) == 2)

        supervisor.send_signal(signal.SIGINT)

        assert await ended(supervisor) == 0
        await gather(results)
        assert len(project.ledger("end")) == 2


async def test_workers_drain_when_their_supervisor_is_killed(project):
    async with project.app() as app:
        supervisor = project.start("worker", "tasks:app", "--workers", "2")
        pids = await until(lambda: _pids(app, 2))

        supervisor.kill()

        await until(lambda: not any(_is_alive(pid) for pid in pids))
        assert await app.backend.get_active_workers() == []


def _is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_a_supervisor_that_is_stopped_while_its_workers_start_ends_well(project):
    supervisor = project.start("worker", "tasks:app", "--workers", "2")
    await until(lambda: _children(supervisor.pid, 2))

    supervisor.send_signal(signal.SIGTERM)

    assert await ended(supervisor) == 0


@pytest.mark.parametrize(
    ("module", "text"),
    [("missing:app", "no module 'missing'"), ("tasks:ap", "did you mean 'app'?"), ("failing:app", "does not import")],
)
async def test_a_supervisor_whose_workers_cannot_start_gives_up(project, module, text):
    (project.folder / "failing.py").write_text("import nothing_of_that_name\n")

    done = await asyncio.to_thread(project.run, "worker", module, "--workers", "2")

    assert done.returncode == 2
    assert text in done.stderr
    assert "worker_cannot_start" in done.stderr


async def test_a_forked_child_has_a_connection_of_its_own(project, start_workers):
    script = """
import os, sys
from tasks import app, add

first = add.delay_sync(1, 1)
pid = os.fork()
result = add.delay_sync(2, 2).get_sync(timeout=15)
if pid == 0:
    os._exit(0 if result == 4 else 1)
_, status = os.waitpid(pid, 0)
print(first.get_sync(timeout=15), result, os.waitstatus_to_exitcode(status))
"""
    (project.folder / "forking.py").write_text(script)
    async with project.app() as app:
        await start_workers(app, 1)

        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-W", "ignore", "forking.py"],
            cwd=project.folder,
            env=project.environment(),
            capture_output=True,
            text=True,
            timeout=30,
        )

    assert done.stdout.split() == ["2", "4", "0"], done.stderr


async def test_results_are_pushed_between_processes_without_a_worker_in_this_one(project, start_workers):
    async with project.app() as app:
        await start_workers(app, 1)
        results = [await app.send_task("tasks.add", [n, n]) for n in range(200)]

        assert await gather(results) == [2 * n for n in range(200)]


async def test_nothing_is_left_after_a_drain(project, start_workers):
    async with project.app() as app:
        (worker,) = (await start_workers(app, 1)).values()
        await gather([await app.send_task("tasks.add", [n, n]) for n in range(100)])

        worker.send_signal(signal.SIGTERM)
        assert await ended(worker) == 0

        stats = await app.broker.stats()
        assert (stats.ready, stats.delayed, stats.running) == (0, 0, 0)
        assert await app.broker.cleanup_stale_clients(stale_seconds=0) == 0, "the worker took its leave"
        await eventually(lambda: not list((project.folder / ".chicory").glob(f"chicory.db.wake/*-{worker.pid}-*")))
