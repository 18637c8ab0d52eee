"""Child processes: real ones, shared by the tests of this page, because one takes half a second to start."""

import asyncio
import contextlib
import os
import signal
import sys
import textwrap

import pytest
import pytest_asyncio

from chicory import TaskFailedError, TaskState, Worker, WorkerConfig
from chicory.errors import ProcessStartError
from chicory.home import Home
from chicory.launch import Launch
from chicory.processes import process_pool
from chicory.testing import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

TASKS = """
import ctypes
import os
import subprocess
import sys
import time
from contextvars import ContextVar
from pathlib import Path

from chicory import Chicory, ChicoryConfig, DeliveryMode, RetryPolicy, TaskContext, ValidationMode
from chicory.plugin import current_attempt

LARGE = 8_000_000
app = Chicory(broker="memory://", backend="memory://", config=ChicoryConfig(max_message_bytes=LARGE + 1000))
word = ContextVar("word", default="none")
AGAIN = RetryPolicy(max_retries=2, retry_delay=0, jitter=False)


class Missing(LookupError): ...


def wait_for(path):
    while not Path(path).exists():
        time.sleep(0.005)


def task(function=None, **options):
    return app.task(execution="process", **options)(function) if function else lambda f: task(f, **options)


@task
def pid() -> int:
    return os.getpid()

@task
def seen(ctx: TaskContext, *, name: str = "nobody") -> dict[str, object]:
    return {"id": ctx.task_id, "queue": ctx.queue, "headers": ctx.headers, "max": ctx.max_retries, "name": name,
            "deadline": ctx.deadline is not None, "attempt": current_attempt.get().message.id, "before": word.get(),
            "set": word.set("left").var.name, "cwd": os.getcwd(), "path": sys.path, "stdin": sys.stdin.read()}

@task
def lookup(key: str) -> None:
    raise Missing(f"no {key}")

@task
def leave() -> None:
    sys.exit("bye")

@task(retry_policy=AGAIN)
def flaky(ctx: TaskContext) -> int:
    if ctx.retries < 2:
        raise Missing
    return ctx.retries

@task(retry_policy=RetryPolicy(max_retries=5, retry_delay=0, jitter=False, ignore_on=(LookupError,)))
def ignored(ctx: TaskContext) -> None:
    raise Missing(f"try {ctx.retries}")

@task(retry_policy=RetryPolicy(max_retries=1, retry_delay=0, jitter=False, retry_on=(Missing, "TimeoutError")))
def chosen(ctx: TaskContext, kind: str) -> None:
    raise {"mine": Missing, "slow": TimeoutError, "other": KeyError}[kind](f"try {ctx.retries}")

@task(retry_policy=AGAIN)
def again(ctx: TaskContext) -> int:
    if ctx.retries < 1:
        ctx.retry(countdown=0, exc=Missing("not yet"))
    return ctx.retries

@task(retry_policy=AGAIN)
def odd(ctx: TaskContext) -> None:
    if ctx.retries < 1:
        ctx.retry(countdown=0, exc=OSError("no file \\udcff"))
    raise Missing("no file \\udcff")

@task(delivery_mode=DeliveryMode.AT_MOST_ONCE)
def once() -> int:
    return os.getpid()

@task
def never(ctx: TaskContext) -> None:
    ctx.retry(exc=Missing("not yet"))

@task(retry_policy=AGAIN)
def final(ctx: TaskContext) -> None:
    try:
        raise Missing("gone for good")
    except Missing as error:
        ctx.fail(error)

@task(validation_mode=ValidationMode.STRICT, retry_policy=AGAIN)
def strict() -> int:
    return "many"

@task(retry_policy=AGAIN)
def unwritable():
    return object()

@task
def echo(text: str) -> str:
    return text

@task
def grow(size: int) -> str:
    return "x" * size

@task(ignore_result=True)
def ignoring() -> object:
    return object()

@task
def halfway(ctx: TaskContext, gate: str) -> None:
    ctx.app.run_sync(ctx.progress(1, 2))
    wait_for(gate)

@task
def exit_at_once(code: int) -> None:
    os._exit(code)

@task
def crash() -> None:
    ctypes.string_at(0)

@task(timeout=2)
def too_long(told: str) -> None:
    grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(told).write_text(f"{os.getpid()} {grandchild.pid}")
    time.sleep(600)

@task(timeout=60)
def hold(told: str, gate: str) -> int:
    Path(told).write_text(str(os.getpid()))
    wait_for(gate)
    return os.getpid()

@task(timeout=1)
def quick() -> int:
    return os.getpid()

@task
def close_everything() -> None:
    os.closerange(3, 256)

@task
def allocate(megabytes: int) -> int:
    return len(bytearray(megabytes * 1024 * 1024))

@task
def fork_and_die() -> None:
    if os.fork() == 0:
        time.sleep(5)  # holds the socket of its parent open for longer than anyone waits
        os._exit(0)
    os._exit(4)

@task
def broker() -> str:
    return app.broker.address
"""

UNIMPORTABLE = """
import sys
from chicory import Chicory

app = Chicory(broker="memory://", backend="memory://")
if sys.modules["__main__"].__spec__ and sys.modules["__main__"].__spec__.name == "chicory.child":
    raise ImportError("this machine has no such library")

@app.task(execution="process")
def forecast() -> None: ...
"""

PLUGIN = """
import contextlib, os
from chicory.plugin import hookimpl

@hookimpl
def chicory_lifespan(app, role):
    return life(role) if role == "child" else None

@contextlib.asynccontextmanager
async def life(role):
    tell(f"{role} began")
    yield
    tell(f"{role} ended")

def tell(text):
    with open(os.environ["TOLD"], "a") as file:
        file.write(f"{os.getpid()} {text}\\n")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A directory on ``sys.path`` with the modules above, and a plugin that is installed there."""
    folder = tmp_path_factory.mktemp("modules")
    for name, source in {"crunching": TASKS, "unimportable": UNIMPORTABLE, "biographer": PLUGIN}.items():
        (folder / f"{name}.py").write_text(textwrap.dedent(source))
    info = folder / "biographer-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: biographer\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[chicory.plugins]\nbiographer = biographer\n")
    sys.path.insert(0, str(folder))
    os.environ["TOLD"] = str(folder / "told.txt")
    yield folder
    sys.path.remove(str(folder))
    del os.environ["TOLD"]
    for name in ("crunching", "unimportable", "biographer"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def tasks(folder):
    import crunching

    return crunching


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def worker(tasks):
    """One worker with up to two children for all tests; its app is ``tasks.app``."""
    async with tasks.app, Worker(tasks.app, WorkerConfig(concurrency=8, processes=2)) as worker:
        yield worker


@contextlib.asynccontextmanager
async def another(tasks, **settings):
    """A worker of its own on a queue of its own, so that its settings and its end disturb nobody."""
    async with Worker(tasks.app, WorkerConfig(**{"queue": "apart", "processes": 1, **settings})) as worker:
        yield worker


async def failure_of(result):
    with pytest.raises(TaskFailedError) as caught:
        await result
    return caught.value


async def written(path):
    """What a task writes into *path*, once it is there."""
    await eventually(lambda: path.exists() and path.read_text(), within=20)
    return path.read_text()


def lives(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def gone(pid):
    await eventually(lambda: not lives(pid), within=10)


# --- what a task sees and says ----------------------------------------------------------------------


async def test_a_task_runs_in_a_process_that_stays_warm(tasks, worker):
    first = await (await tasks.pid.delay())
    second = await (await tasks.pid.delay())

    assert first == second != os.getpid()


async def test_it_has_its_context_and_the_surroundings_of_the_worker(tasks, worker):
    call = tasks.seen.options(headers={"by": "me"}, task_id="order-17")

    seen = await (await call.delay(name="Ada"))

    assert seen.pop("path") == sys.path
    assert seen == {
        "id": "order-17",
        "queue": "default",
        "headers": {"by": "me"},
        "max": 0,
        "name": "Ada",
        "deadline": False,
        "attempt": "order-17",
        "before": "none",
        "set": "word",
        "cwd": os.getcwd(),
        "stdin": "",
    }


async def test_context_variables_of_one_task_do_not_reach_the_next(tasks, worker):
    first, second = [await (await tasks.seen.delay()) for _ in range(2)]

    assert (first["before"], second["before"]) == ("none", "none")


async def test_an_error_comes_with_its_type_text_and_traceback(tasks, worker):
    error = await failure_of(await tasks.lookup.delay("spice"))

    assert (error.error_type, error.error) == ("Missing", "no spice")
    assert 'raise Missing(f"no {key}")' in error.remote_traceback
    assert error.remote_traceback.strip().endswith("crunching.Missing: no spice")


async def test_sys_exit_is_a_failure_and_the_process_lives_on(tasks, worker):
    before = await (await tasks.pid.delay())

    error = await failure_of(await tasks.leave.delay())

    assert (error.error_type, error.error) == ("SystemExit", "bye")
    assert await (await tasks.pid.delay()) == before


async def test_it_is_retried_by_its_policy(tasks, worker):
    assert await (await tasks.flaky.delay()) == 2


async def test_a_policy_finds_the_base_classes_of_an_error(tasks, worker):
    error = await failure_of(await tasks.ignored.delay())

    assert error.error == "try 0"


@pytest.mark.parametrize(("kind", "tries"), [("mine", "try 1"), ("slow", "try 1"), ("other", "'try 0'")])
async def test_a_policy_finds_classes_and_names_of_errors(tasks, worker, kind, tries):
    error = await failure_of(await tasks.chosen.delay(kind))

    assert error.error == tries


async def test_it_can_ask_for_a_retry(tasks, worker):
    assert await (await tasks.again.delay()) == 1


async def test_a_retry_that_is_not_left_says_why_it_was_asked_for(tasks, worker):
    error = await failure_of(await tasks.never.delay())

    assert (error.error_type, "Missing: not yet" in error.error) == ("MaxRetriesExceededError", True)


async def test_texts_that_no_message_could_carry_arrive_escaped(tasks, worker):
    error = await failure_of(await tasks.odd.delay())

    assert (error.error_type, error.error) == ("Missing", "no file \\udcff")


async def test_it_can_run_at_most_once(tasks, worker):
    assert await (await tasks.once.delay()) != os.getpid()


async def test_it_can_fail_for_good(tasks, worker):
    result = await tasks.final.delay()

    error = await failure_of(result)

    assert (error.error_type, error.error) == ("Missing", "gone for good")
    assert 'raise Missing("gone for good")' in error.remote_traceback
    assert (await result.info()).retries == 0


@pytest.mark.parametrize(
    ("name", "kind", "text"),
    [
        ("strict", "ValidationError", "return value of task 'crunching.strict'"),
        ("unwritable", "EncodingError", "the result of task 'crunching.unwritable'"),
    ],
)
async def test_a_result_that_does_not_fit_is_final(tasks, worker, name, kind, text):
    result = await getattr(tasks, name).delay()

    error = await failure_of(result)

    assert (error.error_type, error.error.startswith(text)) == (kind, True)
    assert (await result.info()).retries == 0


async def test_large_arguments_and_results_pass(tasks, worker):
    text = "x" * (tasks.LARGE - 1000)

    assert await (await tasks.echo.delay(text)) == text


async def test_a_result_over_the_limit_is_a_failure(tasks, worker):
    error = await failure_of(await tasks.grow.delay(tasks.LARGE + 2000))

    assert error.error_type == "PayloadTooLargeError"


async def test_a_result_that_is_ignored_is_not_even_written(tasks, worker):
    result = await tasks.ignoring.delay()

    await eventually(lambda: _state_is(result, TaskState.SUCCESS), within=10)


async def _state_is(result, state):
    return await result.state() is state


async def test_progress_is_seen_while_it_runs(tasks, worker, tmp_path):
    result = await tasks.halfway.delay(str(tmp_path / "gate"))

    async def is_halfway():
        info = await result.info()
        return (info.state, info.progress) == (TaskState.STARTED, (1, 2))

    await eventually(is_halfway, within=10)
    (tmp_path / "gate").touch()
    await result


# --- its end ----------------------------------------------------------------------------------------


async def test_a_process_that_ends_by_itself_fails_the_task_and_harms_nobody(tasks, worker):
    error = await failure_of(await tasks.exit_at_once.delay(3))

    assert error.error_type == "ProcessDiedError"
    assert "task 'crunching.exit_at_once' ended with exit code 3" in error.error
    assert await (await tasks.pid.delay()) != os.getpid()


async def test_a_crash_names_the_signal(tasks, worker):
    error = await failure_of(await tasks.crash.delay())

    assert "was ended by SIGSEGV: a C extension has crashed" in error.error


async def test_a_task_over_its_time_is_killed_with_what_it_has_started(tasks, worker, tmp_path):
    result = await tasks.too_long.delay(str(tmp_path / "told"))

    error = await failure_of(result)

    assert error.error_type == "TaskTimeoutError"
    for pid in map(int, (tmp_path / "told").read_text().split()):
        await gone(pid)


async def test_death_is_seen_though_a_fork_holds_the_socket(tasks, worker):
    error = await failure_of(await tasks.fork_and_die.delay())

    assert "ended with exit code 4" in error.error


async def test_a_task_that_closes_the_socket_to_the_worker_fails(tasks, worker):
    error = await failure_of(await tasks.close_everything.delay())

    assert "ended with exit code 1" in error.error


async def test_a_child_that_dies_while_idle_costs_no_task(tasks, worker):
    for pid in {await (await tasks.pid.delay()) for _ in range(4)}:
        os.kill(pid, signal.SIGKILL)
        await gone(pid)

    assert await (await tasks.pid.delay()) not in (pid, os.getpid())


# --- how many, and for how long ---------------------------------------------------------------------


async def test_waiting_for_a_child_is_no_part_of_the_time_of_a_task(tasks, worker, tmp_path):
    async with another(tasks):
        holding = await tasks.hold.options(queue="apart").delay(str(tmp_path / "told"), str(tmp_path / "gate"))
        pid = int(await written(tmp_path / "told"))
        waiting = await tasks.quick.options(queue="apart").delay()
        its_end = asyncio.get_running_loop().time() + 1.1  # longer than its timeout
        await eventually(lambda: asyncio.get_running_loop().time() > its_end)
        assert await waiting.state() is TaskState.PENDING

        (tmp_path / "gate").touch()

        assert await holding == await waiting == pid


async def test_what_expires_while_it_waits_for_a_child_does_not_start(tasks, worker, tmp_path):
    async with another(tasks):
        holding = await tasks.hold.options(queue="apart").delay(str(tmp_path / "told"), str(tmp_path / "gate"))
        await written(tmp_path / "told")
        waiting = await tasks.quick.options(queue="apart", expires=0.5).delay()
        expires = asyncio.get_running_loop().time() + 0.6
        await eventually(lambda: asyncio.get_running_loop().time() > expires)
        (tmp_path / "gate").touch()

        error = await failure_of(waiting)

        assert (error.error_type, error.state) == ("TaskExpiredError", TaskState.EXPIRED)
        await holding


async def test_what_waits_for_a_child_goes_back_on_a_stop_and_what_runs_is_killed(tasks, worker, tmp_path):
    async with another(tasks, concurrency=3) as leaving:
        result = await tasks.hold.options(queue="apart").delay(str(tmp_path / "told"), str(tmp_path / "gate"))
        pid = int(await written(tmp_path / "told"))
        waiting = [await task.options(queue="apart").delay() for task in (tasks.quick, tasks.once)]
        await eventually(lambda: leaving.get_stats().active_tasks == 3)

        await leaving.stop(timeout=0)

        assert not lives(pid)
        assert [(await r.info()).retries for r in (result, *waiting)] == [0, 0, 0]
        assert (await tasks.app.broker.stats("apart")).ready == 3, "what was to run at most once has not started"
        await tasks.app.broker.purge("apart")


async def test_a_drain_lets_a_running_task_finish_and_ends_the_children(tasks, worker, tmp_path):
    async with another(tasks) as leaving:
        result = await tasks.hold.options(queue="apart").delay(str(tmp_path / "told"), str(tmp_path / "gate"))
        pid = int(await written(tmp_path / "told"))
        stopping = asyncio.create_task(leaving.stop())
        await asyncio.sleep(0)
        (tmp_path / "gate").touch()

        await stopping

        assert await result == pid
        assert not lives(pid)


async def test_a_child_is_replaced_after_its_tasks(tasks, worker):
    async with another(tasks, process_recycle_tasks=2):
        pids = [await (await tasks.pid.options(queue="apart").delay()) for _ in range(3)]

    assert pids[0] == pids[1] != pids[2]


async def test_a_task_over_the_memory_limit_fails_and_its_child_is_replaced(tasks, worker):
    async with another(tasks, process_memory_bytes=700_000_000):
        call = tasks.pid.options(queue="apart")
        before = await (await call.delay())
        assert await (await tasks.allocate.options(queue="apart").delay(1)) == 1024 * 1024

        error = await failure_of(await tasks.allocate.options(queue="apart").delay(2000))

        assert error.error_type == "MemoryError"
        assert await (await call.delay()) != before


# --- importing --------------------------------------------------------------------------------------


async def test_plugins_begin_and_end_with_a_child(tasks, worker, folder):
    async with another(tasks):
        pid = await (await tasks.pid.options(queue="apart").delay())

    told = (folder / "told.txt").read_text().splitlines()
    assert [line for line in told if line.startswith(f"{pid} ")] == [f"{pid} child began", f"{pid} child ended"]


async def test_a_module_that_does_not_import_fails_its_tasks_and_says_so(folder, worker):
    import unimportable

    async with unimportable.app, Worker(unimportable.app, WorkerConfig(processes=1)):
        error = await failure_of(await unimportable.forecast.delay())

    assert error.error_type == "ProcessStartError"
    assert "ImportError: this machine has no such library" in error.error


@contextlib.asynccontextmanager
async def a_pool(launch=Launch(), **settings):
    async with process_pool(WorkerConfig(processes=1, **settings), launch, "w1") as pool:
        yield pool


async def test_a_module_that_does_not_register_the_task_is_named(folder):
    async with a_pool() as pool:
        with pytest.raises(ProcessStartError, match="importing module 'textwrap' defines neither this task nor an app"):
            async with pool.child(Home(task="textwrap.nothing", module="textwrap")):
                pass


async def test_what_the_command_line_decided_holds_in_a_child(folder):
    (folder / "launched.py").write_text(
        "from chicory import Chicory\n"
        "app = Chicory(broker='sqlite:///never.db', backend=None)\n"
        "app.task(execution='process', name='ask')(__import__('crunching').pid.function)\n"
        "if app.broker.address != 'memory://': raise ImportError(app.broker.address)\n"
    )
    home = Home(task="ask", module="launched")
    async with a_pool(Launch(broker="memory://")) as pool, pool.child(home) as child:
        assert pool.pids == {child.pid}
    assert pool.pids == set()


async def test_a_child_that_cannot_be_started_is_said(folder, monkeypatch):
    async with a_pool() as pool:
        monkeypatch.setattr(sys, "executable", "/nowhere/python")
        with pytest.raises(ProcessStartError, match="FileNotFoundError"):
            async with pool.child(Home(task="t", module="textwrap")):
                pass


async def test_a_start_that_nobody_waits_for_any_more_is_kept_for_the_next_task(tasks, folder):
    async with a_pool() as pool:
        waiting = asyncio.create_task(_enter(pool, tasks.pid.home))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        await eventually(lambda: len(pool.pids) == 1, within=10)
        (pid,) = pool.pids

        assert await _enter(pool, tasks.pid.home) == pid


async def _enter(pool, home):
    async with pool.child(home) as child:
        return child.pid


async def test_closing_ends_a_child_that_runs_a_task(tasks, folder):
    pool = process_pool(WorkerConfig(processes=1), Launch(), "w1")
    async with pool.child(tasks.pid.home) as child:
        await pool.close()
        assert child.is_dead
    await pool.close()
