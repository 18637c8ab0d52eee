"""What is set aside, and what a dead letter says: each way to fail for good, in memory under a clock that stands still."""

import asyncio

import msgspec
import pytest

from chicory import Chicory, DeliveryMode, RetryPolicy, TaskContext, TaskFailedError, TaskState
from chicory.memory import MemoryBroker
from chicory.plugin import current_attempt
from chicory.testing import an_envelope, eventually
from chicory_dlq import DeadLetters

ONE_RETRY = RetryPolicy(max_retries=1, retry_delay=0, jitter=False)


@pytest.fixture
def app(memory_app):
    @memory_app.task(name="broken", retry_policy=ONE_RETRY)
    async def broken(n: int = 0) -> None:
        raise OSError(f"disk {n} is gone")

    @memory_app.task(name="plain")
    async def plain() -> None:
        raise KeyError("x")

    @memory_app.task(name="refused", retry_policy=ONE_RETRY)
    async def refused(ctx: TaskContext) -> None:
        ctx.fail(PermissionError("not for us"))

    @memory_app.task(name="asks", retry_policy=ONE_RETRY)
    async def asks(ctx: TaskContext) -> None:
        ctx.retry(countdown=0)

    @memory_app.task(name="ok")
    async def ok(n: int = 1) -> int:
        return n

    @memory_app.task(name="cancels")
    async def cancels() -> None:
        raise asyncio.CancelledError

    @memory_app.task(name="odd")
    async def odd() -> object:
        return object()

    return memory_app


async def death_of(result):
    with pytest.raises(TaskFailedError) as caught:
        await result
    return caught.value


async def send_raw(app, envelope):
    client = await app.client()
    await client.connection.joined.publish([envelope])
    return app.backend and envelope.id


@pytest.mark.parametrize(
    ("task", "reason", "error_type", "retries"),
    [
        ("broken", "retries_exhausted", "OSError", 1),
        ("plain", "error", "KeyError", 0),
        ("refused", "final", "PermissionError", 0),
        ("asks", "retries_exhausted", "MaxRetriesExceededError", 1),
        ("cancels", "error", "CancelledError", 0),
        ("odd", "final", "EncodingError", 0),
    ],
)
async def test_what_fails_for_good_is_set_aside_with_its_reason(app, work, task, reason, error_type, retries):
    async with work(app):
        result = await app.tasks[task].delay()
        error = await death_of(result)

        letter = await app.require(DeadLetters).get(result.task_id)

    assert (error.state, error.reason, error.error_type) == (TaskState.DEAD_LETTERED, reason, error_type)
    assert f"DEAD_LETTERED ({reason})" in str(error)
    death = letter.death
    assert (death.reason, death.error_type, death.error, death.retries) == (reason, error_type, error.error, retries)
    assert (letter.task, letter.queue, letter.history) == (task, "default", ())


async def test_a_dead_letter_says_when_where_and_how(app, work, clock):
    async with work(app) as worker:
        result = await app.tasks["broken"].options(headers={"trace": "t1"}).delay(7)
        error = await death_of(result)

        letter = await app.require(DeadLetters).get(result.task_id)

    death = letter.death
    assert death.at == clock.now()
    assert (death.worker_id, death.host) == (worker.worker_id, worker.get_stats().hostname)
    assert "disk 7 is gone" in death.error
    assert death.traceback == error.remote_traceback
    assert "in broken" in death.traceback
    assert death.delivery_count == 1
    assert letter.arguments.data == b'{"args":[7],"kwargs":{}}'
    assert letter.document.headers == {"trace": "t1"}
    assert (letter.envelope.id, letter.envelope.hop) == (result.task_id, 2)


async def test_arguments_that_do_not_fit_are_set_aside(app, work):
    document = {"chicory": 1, "id": "a", "task": "ok", "arguments": {"args": ["many"], "kwargs": {}}}
    async with work(app):
        await send_raw(app, an_envelope(id="a", body=msgspec.json.encode(document)))
        letter = await eventually(lambda: _letter(app, "a"))

    assert letter.death.reason == "validation"
    assert letter.arguments.data == b'{"args":["many"],"kwargs":{}}'


async def _letter(app, task_id):
    page = await app.require(DeadLetters).list()
    return next((letter for letter in page.letters if letter.id == task_id), None)


@pytest.mark.parametrize(
    "body",
    [b"", b"\xff\x00", b"[]", b'{"chicory": 1', b'{"chicory": 99, "id": "a", "task": "ok"}'],
    ids=["empty", "no text", "no object", "cut off", "from the future"],
)
async def test_bytes_that_are_no_document_are_kept_untouched(app, work, body):
    async with work(app):
        await send_raw(app, an_envelope(id="a", body=body, priority=4))
        letter = await eventually(lambda: _letter(app, "a"))

    assert (letter.death.reason, letter.death.error_type, letter.death.retries) == ("unreadable", "MessageDecodeError", None)
    assert (letter.task, letter.is_readable, letter.arguments.data) == ("?", False, body)
    assert (letter.envelope.hop, letter.envelope.priority) == (1, 4)


async def test_fields_from_the_future_and_packed_arguments_survive(app, work):
    packed = {"content_type": "application/x-new", "packed": "AAEC", "from_the_future": [1, 2]}
    body = msgspec.json.encode({"chicory": 1, "id": "a", "task": "ok", **packed})
    async with work(app):
        await send_raw(app, an_envelope(id="a", body=body))
        letter = await eventually(lambda: _letter(app, "a"))

    assert letter.death.reason == "validation"
    assert (letter.arguments.content_type, letter.arguments.data) == ("application/x-new", b"\x00\x01\x02")
    assert msgspec.json.decode(letter.envelope.body)["from_the_future"] == [1, 2]


async def test_an_unknown_task_is_set_aside_when_its_time_is_over(app, work):
    async with work(app, unknown_task_seconds=0):
        result = await app.send_task("never.registered")
        error = await death_of(result)

        assert (await app.require(DeadLetters).get(result.task_id)).death.reason == "unknown_task"
    assert (error.reason, error.error_type) == ("unknown_task", "TaskNotFoundError")


async def test_an_unknown_task_is_not_set_aside_before_that(app, work, clock):
    async with work(app, unknown_task_seconds=600):
        result = await app.send_task("never.registered")
        await clock.advance(5)

        assert await result.state() is TaskState.PENDING
        assert await app.require(DeadLetters).count() == 0


async def test_a_message_that_was_delivered_too_often_is_set_aside(app, work, clock):
    async with app:
        result = await app.tasks["ok"].delay()
        async with app.broker_twin() as doomed:
            assert isinstance(doomed, MemoryBroker)
            await doomed.prepare(["default"], 30)
            for _ in range(2):
                assert await doomed.receive(["default"], 1, 0)
                await clock.advance(31)
        async with work(app, max_deliveries=2):
            await death_of(result)

            death = (await app.require(DeadLetters).get(result.task_id)).death
    assert (death.reason, death.delivery_count) == ("delivery_limit", 3)


@pytest.mark.parametrize("wanted", [False, True])
async def test_what_came_too_late_is_set_aside_only_if_that_is_wanted(work, clock, monkeypatch, wanted):
    monkeypatch.setenv("CHICORY_DLQ_EXPIRED", str(wanted))
    app = Chicory(broker="memory://", clock=clock)

    @app.task
    async def late() -> None: ...

    async with app:
        result = await late.options(expires=10).delay()
        await clock.advance(11)
        async with work(app):
            error = await death_of(result)
            count = await app.require(DeadLetters).count()

    expected = (TaskState.DEAD_LETTERED, "expired", 1) if wanted else (TaskState.EXPIRED, "expired", 0)
    assert (error.state, error.reason, count) == expected


async def test_a_task_that_ran_at_most_once_never_comes_again(app, work):
    @app.task(delivery_mode=DeliveryMode.AT_MOST_ONCE)
    async def once() -> None:
        raise OSError("half done")

    async with work(app):
        error = await death_of(await once.delay())

        assert error.state is TaskState.FAILURE
        assert await app.require(DeadLetters).count() == 0


async def test_a_task_at_most_once_that_never_ran_is_set_aside(app, work):
    @app.task(name="once", delivery_mode=DeliveryMode.AT_MOST_ONCE)
    async def once(n: int) -> None: ...

    document = {"chicory": 1, "id": "a", "task": "once", "arguments": {"args": ["many"], "kwargs": {}}}
    async with work(app):
        await send_raw(app, an_envelope(id="a", body=msgspec.json.encode(document)))

        assert (await eventually(lambda: _letter(app, "a"))).death.reason == "validation"


@pytest.mark.parametrize(
    ("of_worker", "of_task", "is_set_aside"),
    [(True, None, True), (False, None, False), (False, True, True), (True, False, False)],
)
async def test_worker_and_task_say_whether_dead_letters_are_kept(memory_app, work, of_worker, of_task, is_set_aside):
    given = {} if of_task is None else {"use_dead_letter_queue": of_task}

    @memory_app.task(**given)
    async def broken() -> None:
        raise OSError

    async with work(memory_app, use_dead_letter_queue=of_worker):
        error = await death_of(await broken.delay())

        assert error.state is (TaskState.DEAD_LETTERED if is_set_aside else TaskState.FAILURE)
        assert await memory_app.require(DeadLetters).count() == is_set_aside


async def test_success_and_retries_leave_no_dead_letter(app, work):
    @app.task(retry_policy=ONE_RETRY)
    async def flaky(ctx: TaskContext) -> int:
        if not ctx.retries:
            raise OSError
        return 1

    async with work(app):
        assert await (await flaky.delay()) == 1

        assert await app.require(DeadLetters).count() == 0


async def test_a_task_that_a_stopping_worker_cancels_is_no_dead_letter(app, work):
    started = asyncio.Event()

    @app.task
    async def long() -> None:
        started.set()
        await asyncio.Event().wait()

    async with app:
        result = await long.delay()
        async with work(app) as worker:
            await started.wait()
            await worker.stop(timeout=0)

            assert await result.state() is TaskState.PENDING
            assert await app.require(DeadLetters).count() == 0


async def test_each_dead_letter_is_an_event(events, clock, work):
    app = Chicory(broker="memory://", clock=clock)

    @app.task(name="broken", retry_policy=ONE_RETRY)
    async def broken() -> None:
        raise OSError

    async with work(app):
        result = await broken.delay()
        await death_of(result)

    (event,) = events.of("task.dead_lettered")
    assert (event.task_id, event.task, event.queue) == (result.task_id, "broken", "default")
    assert (event.retries, event.reason) == (1, "retries_exhausted")
    assert [e.reason for e in events.of("task.failed")] == ["retries_exhausted"]


class SmallBroker(MemoryBroker):
    """Takes bodies of so many bytes."""

    limit = 0

    @property
    def capabilities(self):
        return msgspec.structs.replace(MemoryBroker.capabilities, max_message_bytes=self.limit)

    def twin(self):
        return type(self)(store=self.store, consumer=self._consumer)


@pytest.mark.parametrize(("limit", "is_set_aside"), [(1900, True), (500, False)], ids=["without traceback", "not at all"])
async def test_a_broker_that_takes_little_gets_a_short_report_or_the_task_just_fails(
    clock, work, monkeypatch, caplog, limit, is_set_aside
):
    monkeypatch.setattr(SmallBroker, "limit", limit)
    app = Chicory(broker=SmallBroker(clock), backend=None, clock=clock)

    @app.task
    async def broken() -> None:
        assert current_attempt.get() is not None
        raise OSError("x" * 4000)

    async with work(app) as worker:
        task_id = await broken.send()
        await eventually(lambda: worker.get_stats().tasks_failed)
        letter = await eventually(lambda: _letter(app, task_id)) if is_set_aside else None

    assert ("dead_letter_too_large" in caplog.text) is not is_set_aside
    if letter:
        assert (letter.death.traceback, len(letter.death.error)) == (None, 501)
