"""The handle on a task that was sent: what it says, and how long it waits."""

import asyncio

import pytest

from chicory import AsyncResult
from chicory.codec import Arguments
from chicory.errors import (
    BackendNotConfiguredError,
    EncodingError,
    ResultIgnoredError,
    ResultNotFoundError,
    SyncCallError,
    TaskFailedError,
)
from chicory.memory import MemoryBackend
from chicory.message import ResultRecord, TaskState
from chicory.record import ResultDocument, pack
from chicory.serializer import JSON


def a_record_of(task_id, state=TaskState.SUCCESS, value=b"3", **document):
    ttl = 3600.0 if state.is_terminal else None
    data = Arguments(content_type=JSON, data=value) if state is TaskState.SUCCESS and value else None
    body = pack(ResultDocument(task="add", **document), data)
    return ResultRecord(id=task_id, state=state, delivery_count=1, body=body, ttl=ttl)


@pytest.fixture
def backend(store):
    return MemoryBackend(store=store)


@pytest.fixture
async def result_of(app, backend):
    """Makes a handle on a task that stands as it is told."""

    async def make(state=TaskState.SUCCESS, **fields):
        await backend.store([a_record_of("m1", state, **fields)])
        return AsyncResult("m1", app.backend)

    async with app:
        yield make


@pytest.fixture
async def apart(make_app, clock):
    """An app whose backend is not where its broker is: nothing says that an id exists."""
    elsewhere = MemoryBackend(clock)
    async with make_app(backend=elsewhere) as app:
        yield app, elsewhere


# --- ended ----------------------------------------------------------------------------------------


async def test_the_value_of_a_task_that_has_ended(result_of):
    result = await result_of()

    assert await result == 3
    assert await result.get() == 3
    assert await result.get(timeout=1, poll_interval=0.1) == 3


@pytest.mark.parametrize("state", [TaskState.FAILURE, TaskState.DEAD_LETTERED, TaskState.CANCELLED, TaskState.EXPIRED], ids=str)
async def test_a_task_that_ended_otherwise_raises_its_error(result_of, state):
    result = await result_of(state, error_type="KeyError", error="no such spice", traceback="Traceback …")

    with pytest.raises(TaskFailedError) as failed:
        await result

    error = failed.value
    assert (error.task_id, error.task, error.state) == ("m1", "add", state)
    assert (error.error_type, error.error, error.remote_traceback) == ("KeyError", "no such spice", "Traceback …")
    assert "no such spice" in str(error)


async def test_a_failure_without_words_is_named_by_its_state(result_of):
    result = await result_of(TaskState.CANCELLED)

    with pytest.raises(TaskFailedError, match=r"task 'add' \(m1\) ended as CANCELLED with CANCELLED"):
        await result


@pytest.mark.parametrize(
    ("state", "ready", "failed"),
    [
        (TaskState.PENDING, False, False),
        (TaskState.STARTED, False, False),
        (TaskState.RETRY, False, False),
        (TaskState.SUCCESS, True, False),
        (TaskState.FAILURE, True, True),
        (TaskState.DEAD_LETTERED, True, True),
        (TaskState.EXPIRED, True, True),
    ],
    ids=str,
)
async def test_a_handle_says_where_the_task_stands(result_of, state, ready, failed):
    result = await result_of(state)

    assert (await result.state(), await result.ready(), await result.failed()) == (state, ready, failed)


async def test_info_says_everything(result_of, clock):
    result = await result_of(TaskState.STARTED, worker_id="w", retries=2, progress=(1.0, 3.0), started_at=clock.now())

    info = await result.info()

    assert (info.task_id, info.state, info.task, info.worker_id) == ("m1", TaskState.STARTED, "add", "w")
    assert (info.retries, info.progress, info.started_at) == (2, (1.0, 3.0), clock.now())


async def test_an_ignored_result_is_an_error_that_says_so(result_of):
    result = await result_of(value=None, ignored=True)

    assert await result.state() is TaskState.SUCCESS
    with pytest.raises(ResultIgnoredError, match=r"task 'add' \(m1\) ignores its result"):
        await result


async def test_an_ignored_result_of_a_failure_is_that_failure(result_of):
    result = await result_of(TaskState.FAILURE, ignored=True, error_type="OSError", error="gone")

    with pytest.raises(TaskFailedError, match="OSError: gone"):
        await result


# --- waiting --------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [TaskState.PENDING, TaskState.STARTED, TaskState.RETRY], ids=str)
async def test_a_result_is_waited_for_until_it_comes(result_of, backend, clock, state):
    waiting = asyncio.ensure_future((await result_of(state)).get())
    await clock.advance(100_000)
    assert not waiting.done()

    await backend.store([a_record_of("m1")])

    assert await waiting == 3


async def test_a_result_that_does_not_come_in_time_is_a_timeout_and_the_task_goes_on(result_of, backend, clock):
    result = await result_of(TaskState.STARTED)
    waiting = asyncio.ensure_future(result.get(timeout=5))

    await clock.advance(5)

    with pytest.raises(TimeoutError, match="task 'm1' did not end within 5 s; it goes on"):
        await waiting
    await backend.store([a_record_of("m1")])
    assert await result == 3


async def test_several_may_wait_for_one_result(result_of, backend, clock):
    result = await result_of(TaskState.STARTED)
    waiting = [asyncio.ensure_future(result.get()) for _ in range(3)]
    await clock.settle()

    await backend.store([a_record_of("m1")])

    assert await asyncio.gather(*waiting) == [3, 3, 3]


async def test_what_this_process_has_sent_is_waited_for(app, backend, clock):
    @app.task(name="add")
    async def add() -> int: ...

    async with app:
        result = await add.delay()
        waiting = asyncio.ensure_future(result.get())
        await clock.advance(100_000)
        assert not waiting.done()

        await backend.store([a_record_of(result.task_id)])

        assert await waiting == 3


# --- unknown, expired, forgotten -------------------------------------------------------------------


@pytest.mark.parametrize("ask", ["get", "state", "info", "ready", "failed"])
async def test_an_id_that_nobody_knows_is_an_error_at_once(app, ask):
    async with app:
        with pytest.raises(ResultNotFoundError, match="no result for task id 'never': it is unknown"):
            await getattr(AsyncResult("never", app.backend), ask)()


async def test_an_expired_result_is_an_error(result_of, clock):
    result = await result_of()
    await clock.advance(3601)

    with pytest.raises(ResultNotFoundError, match="or its result has expired"):
        await result


async def test_a_result_can_be_forgotten(result_of):
    result = await result_of()

    assert await result.forget()

    assert not await result.forget()
    with pytest.raises(ResultNotFoundError, match="was forgotten"):
        await result


async def test_a_result_that_is_forgotten_while_somebody_waits_ends_the_wait(result_of, clock):
    result = await result_of(TaskState.STARTED)
    waiting = asyncio.ensure_future(result.get())
    await clock.settle()

    assert await result.forget()

    with pytest.raises(ResultNotFoundError):
        await waiting


async def test_a_task_that_still_waits_is_not_forgotten(app, store):
    @app.task
    async def add() -> int: ...

    async with app:
        result = await add.delay()

        assert not await result.forget()
        assert await result.state() is TaskState.PENDING


async def test_where_nothing_says_that_an_id_exists_the_first_sign_is_waited_for(apart, clock):
    app, _ = apart
    waiting = asyncio.ensure_future(AsyncResult("never", app.backend).get())
    await clock.advance(59)
    assert not waiting.done()

    await clock.advance(1)

    with pytest.raises(ResultNotFoundError, match=r"no result for task id 'never': no sign of it within 60.0 s"):
        await waiting


async def test_after_a_first_sign_it_is_waited_for_without_limit(apart, clock):
    app, elsewhere = apart
    waiting = asyncio.ensure_future(AsyncResult("m1", app.backend).get())
    await clock.advance(30)
    await elsewhere.store([a_record_of("m1", TaskState.STARTED)])
    await clock.advance(10_000)
    assert not waiting.done()

    await elsewhere.store([a_record_of("m1")])

    assert await waiting == 3


async def test_a_timeout_is_kept_while_the_first_sign_is_waited_for(apart, clock):
    app, _ = apart
    waiting = asyncio.ensure_future(AsyncResult("never", app.backend).get(timeout=10))

    await clock.advance(10)

    with pytest.raises(TimeoutError, match="did not end within 10 s"):
        await waiting


async def test_where_nothing_says_that_an_id_exists_it_counts_as_pending(apart):
    app, _ = apart

    assert await AsyncResult("never", app.backend).state() is TaskState.PENDING


async def test_what_this_process_has_sent_is_waited_for_there_too(apart, clock):
    app, elsewhere = apart

    @app.task(name="add")
    async def add() -> int: ...

    result = await add.delay()
    waiting = asyncio.ensure_future(result.get())
    await clock.advance(10_000)
    assert not waiting.done()

    await elsewhere.store([a_record_of(result.task_id)])

    assert await waiting == 3


# --- what cannot be read, and who asks ---------------------------------------------------------------


async def test_a_value_arrives_as_the_annotation_of_its_task_has_it(app, result_of):
    @app.task(name="add")
    async def add() -> tuple[int, ...]: ...

    assert await (await result_of(value=b"[1,2]")) == (1, 2)


async def test_a_value_of_a_task_that_is_not_registered_here_arrives_as_plain_data(result_of):
    assert await (await result_of(value=b"[1,2]")) == [1, 2]


async def test_a_value_in_a_content_type_that_is_not_enabled_is_not_read(app, backend):
    body = pack(ResultDocument(task="add"), Arguments(content_type="application/x-pickle", data=b"\x80"))
    await backend.store([ResultRecord(id="m1", state=TaskState.SUCCESS, body=body, ttl=60.0)])

    async with app:
        with pytest.raises(EncodingError, match="'application/x-pickle', which is not enabled here"):
            await AsyncResult("m1", app.backend)


@pytest.mark.parametrize("ask", ["get", "state", "info", "ready", "failed", "forget"])
async def test_without_backend_there_is_nobody_to_ask(make_app, ask):
    app = make_app(backend=None)
    result = AsyncResult("m1", app.backend)

    with pytest.raises(BackendNotConfiguredError, match=r"pass backend=\.\.\., or set CHICORY_BACKEND_URL"):
        await getattr(result, ask)()


def test_sync_code_may_wait(make_app, store):
    app = make_app()
    app.run_sync(MemoryBackend(store=store).store([a_record_of("m1")]))
    result = AsyncResult("m1", app.backend)

    assert result.get_sync(timeout=5) == 3

    app.run_sync(app.disconnect())


async def test_on_a_thread_with_a_running_loop_sync_waiting_is_refused(result_of):
    with pytest.raises(SyncCallError, match=r"get_sync\(\) would block .* use `await result.get\(\)`"):
        (await result_of()).get_sync()


def test_a_handle_shows_its_id():
    assert repr(AsyncResult("m1", None)) == "AsyncResult('m1')"
