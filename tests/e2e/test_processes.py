"""Tasks in child processes of real workers: what hangs, crashes or is killed, and who is left alive then."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest

from chicory import TaskFailedError, TaskState

from .conftest import LEASE, ended, until

pytestmark = pytest.mark.e2e

CRUNCHING = '''
import ctypes, logging, os, re, subprocess, sys, time
from pathlib import Path
from tasks import add, app, ledger
from chicory import DeliveryMode, RetryPolicy, TaskContext

log = logging.getLogger("crunching")

class Flaky(OSError): ...

def hold_the_lock():
    """A regular expression that backtracks for ages, and never lets go of the interpreter lock."""
    re.match(r"(a+)+$", "a" * 40 + "b")

@app.task(execution="process", timeout=3)
def regex(ctx: TaskContext) -> None:
    ledger("start", ctx.task_id, os.getpid(), ctx.retries)
    hold_the_lock()

@app.task(execution="process")
def hang(ctx: TaskContext) -> None:
    ledger("start", ctx.task_id, os.getpid(), ctx.retries)
    hold_the_lock()

@app.task(execution="process", delivery_mode=DeliveryMode.AT_MOST_ONCE)
def hang_once(ctx: TaskContext) -> None:
    ledger("start", ctx.task_id, os.getpid(), ctx.retries)
    time.sleep(600)

@app.task
async def parallel() -> int:
    return os.getpid()

@app.task(execution="process")
def pid() -> int:
    return os.getpid()

@app.task(execution="process")
def leave() -> None:
    os._exit(7)

@app.task(execution="process")
def crash() -> None:
    ctypes.string_at(0)

@app.task(execution="process")
def allocate() -> int:
    return len(bytearray(10 * 1024**3))

@app.task(execution="process", retry_policy=RetryPolicy(max_retries=3, retry_delay=0.01, retry_on=(Flaky,)))
def flaky(ctx: TaskContext) -> int:
    if ctx.retries < 2:
        raise Flaky("not yet")
    return ctx.retries

@app.task(execution="process")
def boom() -> None:
    log.warning("about to fail")
    raise Flaky("the text of it")

@app.task(execution="process")
def note(ctx: TaskContext, seconds: float) -> int:
    ledger("start", ctx.task_id, os.getpid(), ctx.retries)
    time.sleep(seconds)
    ledger("end", ctx.task_id, os.getpid(), ctx.retries)
    return os.getpid()

@app.task(execution="process")
def hang_first(ctx: TaskContext) -> int:
    ledger("start", ctx.task_id, os.getpid(), ctx.retries)
    if not os.path.exists("hung"):
        open("hung", "w").close()
        hold_the_lock()
    return os.getpid()

@app.task(execution="process")
def ask(a: int, b: int) -> int:
    return add.delay_sync(a, b).get_sync(timeout=20)
'''


@pytest.fixture
def crunching(project):
    (project.folder / "crunching.py").write_text(CRUNCHING)
    return project


@pytest.fixture
def start(crunching, start_workers):
    """Starts one worker of ``crunching:app``, with one child, and gives back its process."""

    async def begin(app, *arguments, **environment):
        given = {"CHICORY_WORKER_PROCESSES": "1", "CHICORY_WORKER_CONCURRENCY": "4", **environment}
        before = {w.pid for w in await app.backend.get_active_workers()}
        worker = crunching.start("worker", "crunching:app", *arguments, **given)

        async def works():
            assert worker.poll() is None, worker.log.read_text()
            return {w.pid for w in await app.backend.get_active_workers()} - before

        await until(works, within=20)
        return worker

    return begin


async def failure_of(result, timeout=30):
    with pytest.raises(TaskFailedError) as caught:
        await result.get(timeout=timeout)
    return caught.value


def lives(pid):
    """Whether a process runs: one that nobody has reaped yet does not."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def children(pid):
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            return {int(child) for child in file.read().split()}
    except FileNotFoundError:
        return set()


def started(project):
    """The process ids of the tasks that have begun, in order."""
    return [int(pid) for _, pid, _ in project.ledger()]


async def test_code_that_holds_the_interpreter_lock_is_killed_in_time_while_others_go_on(crunching, start):
    async with crunching.app() as app:
        worker = await start(app)
        warm = await (await app.send_task("crunching.pid")).get(timeout=20)
        hanging = await app.send_task("crunching.regex")
        await until(lambda: crunching.ledger())

        began = time.monotonic()
        async_results = [await app.send_task("crunching.parallel") for _ in range(10)]
        assert {await r.get(timeout=10) for r in async_results} == {worker.pid}
        assert not await hanging.ready(), "they have run beside it"
        error = await failure_of(hanging)

        assert error.error_type == "TaskTimeoutError"
        assert time.monotonic() - began < 3 + 7
        assert started(crunching) == [warm]
        assert not lives(warm)
        assert await (await app.send_task("crunching.pid")).get(timeout=20) != warm


async def test_a_worker_keeps_its_leases_while_a_child_holds_its_interpreter_lock(crunching, start):
    async with crunching.app() as app:
        await start(app)
        hanging = await app.send_task("crunching.hang")
        await until(lambda: crunching.ledger())
        await start(app)
        result = await app.send_task("tasks.note", [3 * LEASE])  # on either worker: longer than any lease

        await result.get(timeout=3 * LEASE + 15)

        assert Counter(task_id for task_id, *_ in crunching.ledger())[hanging.task_id] == 1
        assert (await hanging.info()).delivery_count == 1


async def test_children_that_die_fail_their_tasks_and_not_their_worker(crunching, start):
    async with crunching.app() as app:
        worker = await start(app)
        note = await app.send_task("tasks.note", [2.0])

        exited = await failure_of(await app.send_task("crunching.leave"))
        crashed = await failure_of(await app.send_task("crunching.crash"))

        assert (exited.error_type, "ended with exit code 7" in exited.error) == ("ProcessDiedError", True)
        assert (crashed.error_type, "was ended by SIGSEGV" in crashed.error) == ("ProcessDiedError", True)
        assert "crunching.py" in worker.log.read_text(), "the stack of the crash"
        await until(lambda: all(lives(pid) for pid in children(worker.pid)))  # nobody is left unreaped
        assert await note.get(timeout=20) == worker.pid
        assert (await note.info()).delivery_count == 1


async def test_a_memory_limit_is_a_failure_of_the_task_alone(crunching, start):
    async with crunching.app() as app:
        await start(app, CHICORY_WORKER_PROCESS_MEMORY_BYTES=str(1024**3))

        error = await failure_of(await app.send_task("crunching.allocate"))

        assert error.error_type == "MemoryError"
        assert "bytearray(10 * 1024**3)" in error.remote_traceback
        assert await (await app.send_task("crunching.ask", [1, 2])).get(timeout=30) == 3


async def test_errors_are_retried_by_class_and_told_with_the_line_of_the_user(crunching, start):
    async with crunching.app() as app:
        worker = await start(app, CHICORY_WORKER_LOG_FORMAT="json")

        assert await (await app.send_task("crunching.flaky")).get(timeout=20) == 2
        result = await app.send_task("crunching.boom")
        error = await failure_of(result)

        assert (error.error_type, error.error) == ("Flaky", "the text of it")
        assert 'raise Flaky("the text of it")' in error.remote_traceback
        events = [json.loads(line) for line in worker.log.read_text().splitlines() if line.startswith("{")]
        (said,) = [event for event in events if event["event"] == "about to fail"]
        assert (said["task_id"], said["task"], said["logger"]) == (result.task_id, "crunching.boom", "crunching")
        (failed,) = [event for event in events if event["event"] == "task_failed"]
        assert failed["error_type"] == "Flaky"


async def test_a_child_can_call_tasks_and_wait_for_them(crunching, start):
    async with crunching.app() as app:
        await start(app)

        assert await (await app.send_task("crunching.ask", [20, 22])).get(timeout=30) == 42


async def test_no_child_outlives_a_worker_that_is_killed(crunching, start):
    async with crunching.app() as app:
        worker = await start(app, CHICORY_WORKER_PROCESSES="2")
        idle = await (await app.send_task("crunching.pid")).get(timeout=20)
        await app.send_task("crunching.hang")
        await app.send_task("crunching.note", [600.0])
        await until(lambda: len(started(crunching)) == 2)
        pids = {idle, *started(crunching)}
        assert children(worker.pid) == pids

        os.kill(worker.pid, signal.SIGKILL)

        await until(lambda: not any(lives(pid) for pid in pids), within=10)


async def test_a_task_of_a_killed_worker_runs_again_in_a_child_of_another(crunching, start):
    async with crunching.app() as app:
        worker = await start(app)
        result = await app.send_task("crunching.hang_first")
        await until(lambda: started(crunching))
        await start(app)

        os.kill(worker.pid, signal.SIGKILL)

        assert await result.get(timeout=30) == started(crunching)[1] != started(crunching)[0]


async def test_a_worker_that_lost_a_lease_kills_the_child(crunching, start):
    async with crunching.app() as app:
        frozen = await start(app)
        result = await app.send_task("crunching.hang_first")
        await until(lambda: started(crunching))
        (child,) = started(crunching)
        await until(lambda: _has_begun(result))  # or it might be frozen in the transaction that says so
        frozen.send_signal(signal.SIGSTOP)
        await start(app)
        await until(lambda: len(started(crunching)) == 2, within=3 * LEASE + 5)

        frozen.send_signal(signal.SIGCONT)

        await until(lambda: not lives(child), within=3 * LEASE + 5)
        assert await result.get(timeout=15) == started(crunching)[1]
        await until(lambda: "lease_lost" in frozen.log.read_text())


async def _has_begun(result):
    return await result.state() is TaskState.STARTED


async def test_a_drain_finishes_what_runs_in_a_child(crunching, start):
    async with crunching.app() as app:
        worker = await start(app)
        result = await app.send_task("crunching.note", [1.5])
        await until(lambda: started(crunching))
        (child,) = started(crunching)

        os.kill(child, signal.SIGTERM)  # as a service manager does, which signals all processes of a service
        os.kill(child, signal.SIGINT)
        worker.send_signal(signal.SIGTERM)

        assert await ended(worker) == 0
        assert await result.get(timeout=10) == child
        assert not lives(child)


async def test_what_does_not_finish_in_a_drain_is_killed_and_put_back(crunching, start):
    async with crunching.app() as app:
        worker = await start(app, "--shutdown-timeout", "0.2")
        result = await app.send_task("crunching.hang")
        await until(lambda: started(crunching))

        worker.send_signal(signal.SIGTERM)

        assert await ended(worker) == 0
        assert not lives(started(crunching)[0])
        assert await result.state() is TaskState.PENDING
        assert ((await result.info()).retries, (await result.info()).hop) == (0, 1)


async def test_at_most_once_killed_in_a_drain_is_not_put_back(crunching, start):
    async with crunching.app() as app:
        worker = await start(app, "--shutdown-timeout", "0.2")
        result = await app.send_task("crunching.hang_once")
        await until(lambda: started(crunching))

        worker.send_signal(signal.SIGTERM)

        assert await ended(worker) == 0
        assert (await failure_of(result)).error_type == "WorkerLost"
        assert not lives(started(crunching)[0])


SCRIPT = """
import asyncio, os, sys
from chicory import Chicory, RetryPolicy, Worker, WorkerConfig

print("imported as", "program" if __name__ == "__main__" else __name__, flush=True)
app = Chicory(broker="sqlite:///script.db")

class Flaky(Exception): ...

@app.task(execution="process", retry_policy=RetryPolicy(max_retries=3, retry_delay=0, retry_on=(Flaky,)))
def run(times: list[int]) -> str:
    with open("runs.txt", "a") as file:
        file.write("x")
    if os.path.getsize("runs.txt") < 2:
        raise Flaky
    return __name__

async def main():
    async with app, Worker(app, WorkerConfig(processes=1)):
        print(run.name, await (await run.delay([1])), flush=True)

if __name__ == "__main__":
    asyncio.run(main())
"""


def test_a_script_is_imported_by_its_children_without_being_run_again(project):
    (project.folder / "crunch_it.py").write_text(SCRIPT)

    done = subprocess.run(
        [sys.executable, "crunch_it.py"],
        cwd=project.folder,
        env=project.environment(),
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )

    assert done.stderr.count("Traceback") == 0, done.stderr
    assert done.stdout.splitlines() == ["imported as program", "imported as crunch_it", "crunch_it.run crunch_it"]
