"""What a worker makes of tasks that succeed, fail, ask for a retry, or run over their time."""

import asyncio
import threading
from datetime import timedelta

import pytest
from pydantic import BaseModel

from chicory import MaxRetriesExceededError, RetryPolicy, TaskContext, TaskFailedError, TaskState, ValidationMode
from chicory.outbox import Outbox
from chicory.plugin import current_attempt
from chicory.testing import eventually


async def failure_of(result):
    with pytest.raises(TaskFailedError) as caught:
        await result
    return caught.value


async def test_async_and_sync_tasks_give_their_results(app, work):
    @app.task
    async def double(x: int) -> int:
        return 2 * x

    @app.task
    def thread_name() -> str:
        return threading.current_thread().name

    async with work(app):
        assert await (await double.delay(21)) == 42
        assert (await (await thread_name.delay())).startswith("chicory-task")


async def test_a_result_arrives_as_its_type(app, work):
    class Receipt(BaseModel):
        total: int

    @app.task
    async def buy(amount: int) -> Receipt:
        return Receipt(total=amount)

    async with work(app):
        assert await (await buy.delay(3)) == Receipt(total=3)


async def test_a_running_task_says_started_and_how_far_it_is(app, work):
    gate = asyncio.Event()

    @app.task
    async def slow(ctx: TaskContext) -> None:
        await ctx.progress(1, 3)
        await gate.wait()

    async with work(app) as worker:
        result = await slow.delay()
        assert await result.state() is TaskState.PENDING
        await eventually(lambda: _state_is(result, TaskState.STARTED))

        info = await result.info()

        assert (info.worker_id, info.progress, info.task) == (worker.worker_id, (1, 3), slow.name)
        gate.set()
        await result
        assert await result.state() is TaskState.SUCCESS


async def test_a_task_in_a_thread_says_how_far_it_is_on_the_loop_of_its_worker(app, work, monkeypatch):
    said_on = []
    monkeypatch.setattr(Outbox, "progressed", lambda _, attempt: said_on.append((threading.current_thread(), attempt.progress)))

    @app.task
    def slow(ctx: TaskContext) -> None:
        app.run_sync(ctx.progress(1, 3))

    async with work(app):
        await (await slow.delay())
        await eventually(lambda: said_on)

    assert said_on == [(threading.current_thread(), (1, 3))]


async def _state_is(result, state):
    return await result.state() is state


async def test_an_error_comes_with_its_type_text_and_traceback(app, work):
    @app.task
    async def boom() -> None:
        raise KeyError("spice")

    async with work(app):
        error = await failure_of(await boom.delay())

    assert (error.error_type, error.error) == ("KeyError", "'spice'")
    assert "spice" in str(error)
    assert 'raise KeyError("spice")' in error.remote_traceback


async def test_a_task_without_policy_is_not_retried(app, work):
    runs = []

    @app.task
    async def boom() -> None:
        runs.append(1)
        raise OSError

    async with work(app):
        await failure_of(await boom.delay())

    assert len(runs) == 1


async def test_a_retry_waits_its_delay_and_says_so(app, work, clock):
    seen = []

    @app.task(retry_policy=RetryPolicy(max_retries=2, retry_delay=10, jitter=False))
    async def flaky(ctx: TaskContext) -> str:
        seen.append((ctx.retries, ctx.remaining_retries, ctx.is_last_retry))
        if ctx.retries < 2:
            raise OSError
        return "well"

    async with work(app):
        result = await flaky.delay()
        await eventually(lambda: _state_is(result, TaskState.RETRY))
        await clock.advance(9)
        assert len(seen) == 1

        await clock.advance(1.1)
        await eventually(lambda: len(seen) == 2)
        await clock.advance(20.1)

        assert await result == "well"
    assert seen == [(0, 2, False), (1, 1, False), (2, 0, True)]


async def test_when_no_retry_is_left_the_error_itself_is_the_end(app, work, clock):
    @app.task(retry_policy=RetryPolicy(max_retries=1, retry_delay=1, jitter=False))
    async def boom(ctx: TaskContext) -> None:
        raise OSError(f"try {ctx.retries}")

    async with work(app):
        result = await boom.delay()
        await eventually(lambda: _state_is(result, TaskState.RETRY))
        await clock.advance(1.1)

        error = await failure_of(result)

    assert (error.error_type, error.error) == ("OSError", "try 1")
    assert (await result.info()).retries == 1


async def test_errors_that_the_policy_ignores_are_final(app, work):
    runs = []

    @app.task(retry_policy=RetryPolicy(ignore_on=(ValueError,)))
    async def picky() -> None:
        runs.append(1)
        raise UnicodeError("no text")

    async with work(app):
        await failure_of(await picky.delay())

    assert len(runs) == 1


async def test_a_task_may_ask_for_its_retry(app, work, clock):
    @app.task(retry_policy=RetryPolicy(max_retries=3))
    async def poll(ctx: TaskContext) -> int:
        if ctx.retries == 0:
            ctx.retry(countdown=60)
        return ctx.retries

    async with work(app):
        result = await poll.delay()
        await eventually(lambda: _state_is(result, TaskState.RETRY))
        await clock.advance(59)
        assert await result.state() is TaskState.RETRY

        await clock.advance(1.1)

        assert await result == 1


@pytest.mark.parametrize("policy", [None, RetryPolicy(max_retries=0)], ids=["no policy", "no retries"])
async def test_asking_for_a_retry_has_a_limit(app, work, policy):
    @app.task(retry_policy=policy)
    async def poll(ctx: TaskContext) -> None:
        ctx.retry(exc=OSError("not yet"))

    async with work(app):
        error = await failure_of(await poll.delay())

    assert error.error_type == MaxRetriesExceededError.__name__
    assert "not yet" in error.error
    assert 'ctx.retry(exc=OSError("not yet"))' in error.remote_traceback, "where it asked"


async def test_a_task_may_fail_for_good(app, work):
    runs = []

    @app.task(retry_policy=RetryPolicy())
    async def give_up(ctx: TaskContext) -> None:
        runs.append(1)
        ctx.fail(LookupError("no such order"))

    async with work(app):
        error = await failure_of(await give_up.delay())

    assert (error.error_type, error.error, len(runs)) == ("LookupError", "no such order", 1)


@pytest.mark.parametrize(
    "leaving", [SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError()], ids=lambda e: type(e).__name__
)
async def test_a_task_that_wants_to_end_the_process_only_fails(app, work, leaving):
    @app.task
    async def leave() -> None:
        raise leaving

    @app.task
    async def stay() -> str:
        return "here"

    async with work(app):
        error = await failure_of(await leave.delay())
        assert await (await stay.delay()) == "here"

    assert error.error_type == type(leaving).__name__


async def test_a_sync_task_that_raises_stop_iteration_fails(app, work):
    @app.task
    def odd() -> None:
        raise StopIteration

    async with work(app):
        error = await failure_of(await odd.delay())

    assert "StopIteration" in error.error


# --- time-outs -----------------------------------------------------------------------------------


async def test_a_task_over_its_time_fails_and_is_cancelled(app, work, clock):
    stopped = asyncio.Event()

    @app.task(timeout=30)
    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    async with work(app):
        result = await slow.delay()
        await eventually(lambda: _state_is(result, TaskState.STARTED))
        await clock.advance(30.1)

        error = await failure_of(result)

    assert error.error_type == "TaskTimeoutError"
    assert stopped.is_set()


async def test_a_time_out_may_be_retried(app, work, clock):
    @app.task(timeout=30, retry_policy=RetryPolicy(retry_on=(TimeoutError,), retry_delay=1, jitter=False))
    async def slow_at_first(ctx: TaskContext) -> int:
        if ctx.retries == 0:
            await asyncio.Event().wait()
        return ctx.retries

    async with work(app):
        result = await slow_at_first.delay()
        await eventually(lambda: _state_is(result, TaskState.STARTED))
        await clock.advance(30.1)
        await eventually(lambda: _state_is(result, TaskState.RETRY))
        await clock.advance(1.1)

        assert await result == 1


async def test_a_task_that_ignores_cancellation_is_left_behind(app, work, clock):
    release = asyncio.Event()

    @app.task(timeout=10)
    async def deaf() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    async with work(app, concurrency=1):
        result = await deaf.delay()
        await eventually(lambda: _state_is(result, TaskState.STARTED))
        await clock.advance(16)

        error = await failure_of(result)

        assert error.error_type == "TaskTimeoutError"
        release.set()


async def test_a_stuck_thread_fails_its_task_and_is_replaced(app, work, clock):
    release = threading.Event()

    @app.task(timeout=10)
    def stuck() -> None:
        release.wait()

    @app.task
    def quick() -> str:
        return "done"

    async with work(app, threads=1):
        result = await stuck.delay()
        await eventually(lambda: _state_is(result, TaskState.STARTED))
        await clock.advance(10.1)

        error = await failure_of(result)

        assert error.error_type == "TaskTimeoutError"
        assert await asyncio.wait_for(await quick.delay(), 5) == "done"
        release.set()


async def test_the_deadline_is_known_to_the_task(app, work, clock):
    @app.task(timeout=30)
    async def when(ctx: TaskContext) -> bool:
        return ctx.deadline == clock.now() + timedelta(seconds=30)

    async with work(app):
        assert await (await when.delay())


# --- arguments, results, context -----------------------------------------------------------------


async def test_arguments_that_do_not_fit_are_final(app, make_app, work):
    runs = []
    producer = make_app()

    @app.task(name="pay", retry_policy=RetryPolicy())
    async def pay(amount: int) -> None:
        runs.append(amount)

    async with work(app), producer:
        error = await failure_of(await producer.send_task("pay", ["a lot"]))

    assert (error.error_type, runs) == ("ValidationError", [])
    assert "a lot" not in error.error


async def test_a_result_that_cannot_be_encoded_fails_the_task_once(app, work):
    runs = []

    @app.task(retry_policy=RetryPolicy())
    async def odd() -> object:
        runs.append(1)
        return object()

    async with work(app):
        error = await failure_of(await odd.delay())

    assert (error.error_type, len(runs)) == ("EncodingError", 1)
    assert odd.name in error.error


async def test_a_result_over_the_limit_fails_the_task_with_its_size(app, work):
    @app.task
    async def big() -> str:
        return "x" * 600_000

    async with work(app):
        error = await failure_of(await big.delay())

    assert error.error_type == "PayloadTooLargeError"
    assert "600002 bytes" in error.error


async def test_a_return_value_is_checked_where_the_mode_says_so(app, work):
    @app.task(validation_mode=ValidationMode.OUTPUTS)
    async def liar() -> int:
        return "text"

    @app.task
    async def lax() -> int:
        return "text"

    async with work(app):
        error = await failure_of(await liar.delay())
        assert error.error_type == "ValidationError"
        assert await (await lax.delay()) == "text"


async def test_without_input_checks_misfits_arrive_as_they_were_sent(app, work):
    @app.task(validation_mode=ValidationMode.NONE)
    async def echo(number: int, moment: timedelta) -> list[str]:
        return [type(number).__name__, type(moment).__name__]

    async with work(app):
        assert await (await echo.delay("many", timedelta(seconds=3))) == ["str", "timedelta"]


async def test_the_attempt_is_known_to_the_code_it_runs(app, work):
    def who() -> str:
        return current_attempt.get().message.id

    @app.task
    async def in_loop() -> str:
        return who()

    @app.task
    def in_thread() -> str:
        return who()

    async with work(app):
        for task in (in_loop, in_thread):
            result = await task.delay()
            assert await result == result.task_id
    assert current_attempt.get() is None


async def test_a_task_may_send_tasks(app, work):
    @app.task
    async def child(x: int) -> int:
        return x + 1

    @app.task
    async def parent(ctx: TaskContext, x: int) -> int:
        assert ctx.app is app
        return await (await child.delay(x))

    async with work(app):
        assert await (await parent.delay(1)) == 2


async def test_many_tasks_of_all_kinds_end_once(app, work):
    ended = []

    @app.task
    async def quick(x: int) -> int:
        ended.append(x)
        return x

    @app.task
    def threaded(x: int) -> int:
        ended.append(x)
        return x

    async with work(app, concurrency=16) as worker:
        results = await quick.delay_many([(n,) for n in range(500)])
        results += await threaded.delay_many([(n,) for n in range(500, 700)])
        values = await asyncio.gather(*results)

        assert values == list(range(700))
        assert sorted(ended) == list(range(700))
        assert worker.get_stats().tasks_processed == 700
