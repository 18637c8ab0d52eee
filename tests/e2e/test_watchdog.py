"""What real workers say of themselves while they are blocked, stopped, full of stuck threads, or without a broker."""

import asyncio
import http.client
import json
import re
import signal
import sqlite3

import pytest

from chicory import TaskFailedError

from .conftest import ended, until

pytestmark = pytest.mark.e2e

BLOCKERS = """
import os, time
from tasks import app, ledger
from chicory import TaskContext

@app.task
async def sleep(ctx: TaskContext, seconds: float) -> int:
    ledger("start", ctx.task_id, os.getpid(), ctx.retries)
    time.sleep(seconds)
    return os.getpid()

@app.task(timeout=0.3)
def stuck() -> None:
    ledger("start", "stuck", os.getpid(), 0)
    time.sleep(600)
"""


@pytest.fixture
def blockers(project, monkeypatch):
    (project.folder / "blockers.py").write_text(BLOCKERS)
    monkeypatch.setenv("TMPDIR", str(project.folder))  # where state files are: those of other tests are elsewhere
    return project


@pytest.fixture
def start(blockers):
    """Starts one worker of ``blockers:app`` that answers probes; the process, with its address."""

    async def begin(*arguments, **environment):
        given = {"CHICORY_WORKER_HEALTH_ADDRESS": "127.0.0.1:0", "CHICORY_WORKER_LOG_FORMAT": "json", **environment}
        worker = blockers.start("worker", "blockers:app", *arguments, **given)

        def ready():
            assert worker.poll() is None, worker.log.read_text()
            found = said(worker, "health_served")
            return found and probe(found[0]["address"], "/ready")[0] == 200

        await until(ready, within=20)
        worker.address = said(worker, "health_served")[0]["address"]
        return worker

    return begin


def said(process, event):
    lines = [json.loads(line) for line in process.log.read_text().splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == event]


def probe(address, path):
    connection = http.client.HTTPConnection(address, timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


async def test_a_loop_that_never_turns_again_ends_its_process_and_the_task_is_not_lost(blockers, start):
    async with blockers.app() as app:
        worker = await start(CHICORY_WORKER_STALL_LIMIT_SECONDS="2", CHICORY_WORKER_MAX_DELIVERIES="1")
        result = await app.send_task("blockers.sleep", [600.0])

        assert await ended(worker, within=20) == 70

        (report,) = said(worker, "loop_stalled")
        assert (report["task"], "time.sleep(seconds)" in report["stack"]) == ("blockers.sleep", True)
        await start(CHICORY_WORKER_MAX_DELIVERIES="1")
        with pytest.raises(TaskFailedError, match="delivered 1 times and never settled"):
            await result.get(timeout=20)


async def test_a_supervisor_starts_a_stalled_worker_again(blockers):
    async with blockers.app() as app:
        parent = blockers.start(
            "worker", "blockers:app", "--workers", "2", CHICORY_WORKER_STALL_LIMIT_SECONDS="2", CHICORY_WORKER_LOG_FORMAT="json"
        )
        await until(lambda: len(said(parent, "worker_started")) == 2)
        await app.send_task("blockers.sleep", [600.0])

        await until(lambda: len(said(parent, "worker_started")) == 3, within=20)

        (died,) = said(parent, "worker_died")
        assert died["exit_code"] == 70


async def test_a_worker_whose_threads_hang_drains_and_says_why(blockers, start):
    async with blockers.app() as app:
        worker = await start("--concurrency", "4")
        long = await app.send_task("tasks.note", [2.0])
        stuck = [await app.send_task("blockers.stuck") for _ in range(2)]

        for result in stuck:
            with pytest.raises(TaskFailedError, match="ran longer than its timeout"):
                await result.get(timeout=15)

        assert await ended(worker, within=20) == 71
        assert await long.get(timeout=5) == worker.pid, "what ran beside them came to its end"
        assert (await long.info()).delivery_count == 1
        assert "2 of 4 threads are lost to sync tasks" in worker.log.read_text()


async def test_a_draining_worker_lives_and_is_not_ready(blockers, start):
    async with blockers.app() as app:
        worker = await start("--shutdown-timeout", "30")
        result = await app.send_task("tasks.note", [3.0])
        await until(lambda: blockers.ledger())

        worker.send_signal(signal.SIGTERM)
        await until(lambda: probe(worker.address, "/ready")[0] == 503)

        assert probe(worker.address, "/live")[0] == 200
        assert probe(worker.address, "/ready")[1]["reasons"] == ["draining"]
        assert await ended(worker, within=20) == 0
        assert await result.get(timeout=5) == worker.pid


async def test_without_its_broker_a_worker_lives_and_is_not_ready(blockers, start):
    async with blockers.app():
        worker = await start(CHICORY_BROKER_SQLITE_LOCK_SECONDS="0.5")
        locker = sqlite3.connect(blockers.database, isolation_level=None)
        locker.execute("BEGIN IMMEDIATE")

        await until(lambda: probe(worker.address, "/ready")[0] == 503)
        assert probe(worker.address, "/live")[0] == 200
        assert "the broker does not answer" in probe(worker.address, "/ready")[1]["reasons"][0]

        locker.execute("ROLLBACK")
        locker.close()
        await until(lambda: probe(worker.address, "/ready")[0] == 200)


async def test_the_command_sees_one_that_works_one_that_is_frozen_and_one_that_is_gone(blockers, start):
    async with blockers.app():
        worker = await start()
        assert re.fullmatch(rf"{worker.pid} \S+: ready\n", blockers.run("health", "--ready").stdout)

        worker.send_signal(signal.SIGSTOP)
        await until(lambda: blockers.run("health").returncode == 1, within=25)
        assert "frozen: no sign of life for" in blockers.run("health").stdout

        worker.send_signal(signal.SIGCONT)
        await until(lambda: blockers.run("health").returncode == 0)

        worker.kill()
        await asyncio.to_thread(worker.wait)
        done = blockers.run("health")
        assert (done.returncode, f"process {worker.pid} is gone" in done.stdout) == (1, True)


async def test_a_worker_that_ends_well_leaves_no_file(blockers, start):
    async with blockers.app():
        worker = await start()
        worker.send_signal(signal.SIGTERM)

        assert await ended(worker) == 0
        assert blockers.run("health").returncode == 2


async def test_an_address_in_use_ends_the_worker_with_the_reason(blockers, start):
    async with blockers.app():
        worker = await start()

        done = blockers.run("worker", "blockers:app", CHICORY_WORKER_HEALTH_ADDRESS=worker.address)

        assert done.returncode == 2
        assert f"health_address '{worker.address}' cannot be listened on" in done.stderr
