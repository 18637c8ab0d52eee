"""Tasks: calling them here, sending them there, and registering them."""

import asyncio
import inspect
from datetime import UTC, datetime, timedelta

import pytest

from chicory import AsyncResult, RetryPolicy, TaskContext, ValidationMode
from chicory.codec import read
from chicory.errors import DuplicateTaskError, SyncCallError, TaskDefinitionError, TaskNotFoundError, ValidationError
from chicory.memory import MemoryBroker
from chicory.message import TaskState
from chicory.testing import receive_one

from . import postponed


@pytest.fixture
def add(app):
    @app.task(name="add", queue="math", priority=4, expires=60)
    async def add(x: int, y: int = 0) -> int:
        """The sum."""
        return x + y

    return add


@pytest.fixture
async def sent(store, app):
    """What arrives at the broker: a function that takes the next message of a queue."""
    async with app, MemoryBroker(store=store) as broker:

        async def take(queue="math"):
            envelope = (await receive_one(broker, queue)).envelope
            return envelope, read(envelope)

        yield take


# --- here and now --------------------------------------------------------------------------------


async def test_an_async_task_stays_callable(add):
    assert await add(1, 2) == 3
    assert inspect.iscoroutinefunction(type(add).__call__)


def test_a_sync_task_stays_callable(app):
    @app.task
    def double(x: int) -> int:
        return 2 * x

    assert double(21) == 42


def test_a_direct_call_checks_nothing(app):
    @app.task
    def echo(x: int) -> int:
        return x

    assert echo("text") == "text"


async def test_a_direct_call_has_a_context_of_its_own(app):
    @app.task(name="ask", queue="mail", retry_policy=RetryPolicy(max_retries=2))
    async def ask(ctx: TaskContext, x: int) -> tuple:
        await ctx.progress(1, 2)
        return (ctx.app, ctx.task_name, ctx.queue, ctx.retries, ctx.remaining_retries, x)

    assert await ask(5) == (app, "ask", "mail", 0, 2, 5)
    assert await ask(x=6) == (app, "ask", "mail", 0, 2, 6)


def test_a_task_looks_like_its_function(add):
    assert (add.__name__, add.__doc__, add.__wrapped__) == ("add", "The sum.", add.function)
    assert list(inspect.signature(add.function).parameters) == ["x", "y"]
    assert repr(add) == f"<task 'add' at {add.place}>"
    assert add.place.startswith(__file__)


# --- sending -------------------------------------------------------------------------------------


async def test_a_call_travels_with_the_options_of_its_task(add, sent, clock):
    result = await add.delay(1, y=2)

    envelope, document = await sent()
    assert (envelope.id, envelope.priority, envelope.due, envelope.hop) == (result.task_id, 4, None, 0)
    assert (document.task, document.retries) == ("add", 0)
    assert document.argument_bytes().data == b'{"args":[1],"kwargs":{"y":2}}'
    assert (document.enqueued_at, document.expires) == (clock.now(), clock.now() + timedelta(seconds=60))


async def test_what_delay_returns_is_a_handle(add, sent):
    result = await add.delay(1)

    assert type(result) is AsyncResult
    assert await result.state() is TaskState.PENDING


async def test_what_send_returns_is_the_id(add, sent):
    task_id = await add.send(1)

    envelope, _ = await sent()
    assert envelope.id == task_id


async def test_a_call_may_have_other_options(add, sent, clock):
    eta = datetime(2025, 6, 1, tzinfo=UTC)
    call = add.options(queue="high", priority=9, expires=5, task_id="order-17", headers={"trace": "t"}, eta=eta)

    assert (await call.delay(1)).task_id == "order-17"

    envelope, document = await sent("high")
    assert (envelope.id, envelope.queue, envelope.priority, envelope.due) == ("order-17", "high", 9, eta)
    assert (document.headers, document.expires) == ({"trace": "t"}, clock.now() + timedelta(seconds=5))


async def test_a_countdown_is_counted_by_the_clock_of_the_app(add, sent, clock):
    task_id = await add.options(countdown=10).send(1)
    await clock.advance(10)

    envelope, _ = await sent()

    assert (envelope.id, envelope.due) == (task_id, clock.now())


def test_options_that_make_no_sense_are_refused_before_any_call(add):
    with pytest.raises(ValueError, match="priority must be a whole number from 0 to 9"):
        add.options(priority=11)


async def test_arguments_that_do_not_fit_are_refused_and_nothing_is_sent(add, store):
    with pytest.raises(ValidationError, match=r"arguments of task 'add': x: "):
        await add.delay("many")

    assert store.messages == {}


async def test_arguments_are_not_checked_where_the_mode_says_so(app, sent):
    @app.task(queue="math", validation_mode=ValidationMode.NONE)
    async def lax(x: int) -> None: ...

    await lax.delay("many")

    _, document = await sent()
    assert document.argument_bytes().data == b'{"args":["many"],"kwargs":{}}'


async def test_surplus_arguments_are_refused_whatever_the_mode(app):
    @app.task(validation_mode=ValidationMode.NONE)
    async def lax(x: int) -> None: ...

    with pytest.raises(ValidationError, match="takes 1 positional arguments, 2 were given"):
        await lax.delay(1, 2)


async def test_the_context_is_never_passed(app):
    @app.task
    async def ask(ctx: TaskContext, x: int) -> None: ...

    with pytest.raises(ValidationError):
        await ask.delay("ctx", 1)


# --- many ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "calls", [[(1, 2), (3,)], [{"x": 1, "y": 2}, {"x": 3}], [[1, 2], {"x": 3}]], ids=["sequences", "mappings", "both"]
)
async def test_many_calls_are_sent_in_order(add, sent, calls):
    results = await add.delay_many(calls)

    arrived = [await sent(), await sent()]
    assert [envelope.id for envelope, _ in arrived] == [result.task_id for result in results]
    assert [sum([*call.values()] if isinstance(call, dict) else call) for call in calls] == [3, 3]


async def test_many_calls_may_have_other_options(add, sent):
    await add.options(queue="high").delay_many([(1,), (2,)])

    assert (await sent("high"))[0].queue == "high"


async def test_no_calls_are_no_round_trip(add, store):
    assert await add.delay_many([]) == []
    assert store.messages == {}


async def test_if_one_of_many_does_not_fit_none_is_sent(add, store):
    with pytest.raises(ValidationError):
        await add.delay_many([(1,), ("many",)])

    assert store.messages == {}


async def test_one_id_for_many_calls_is_refused(add):
    with pytest.raises(ValueError, match="task_id='order-17' cannot be shared by many calls"):
        await add.options(task_id="order-17").delay_many([(1,), (2,)])


async def test_a_text_is_no_call(app):
    @app.task
    async def greet(name: str) -> None: ...

    with pytest.raises(TypeError, match=r"each call is a sequence of arguments: write \('tom',\), not 'tom'"):
        await greet.delay_many(["tom"])


async def test_calls_that_wait_at_the_same_time_travel_together(make_app, monkeypatch):
    trips, publish = [], MemoryBroker.publish

    async def counted(broker, envelopes):
        trips.append(len(envelopes))
        await publish(broker, envelopes)

    monkeypatch.setattr(MemoryBroker, "publish", counted)
    async with make_app(backend=None) as app:

        @app.task
        async def add(x: int) -> int: ...

        await asyncio.gather(*(add.delay(number) for number in range(200)))

    assert sum(trips) == 200
    assert len(trips) <= 3


# --- from sync code ------------------------------------------------------------------------------


def test_sync_code_may_send(make_app):
    app = make_app()

    @app.task
    def double(x: int) -> int:
        return 2 * x

    result = double.delay_sync(21)
    other = double.options(task_id="order-17").delay_sync(1)

    assert (type(result), other.task_id) == (AsyncResult, "order-17")
    app.run_sync(app.disconnect())


async def test_on_a_thread_with_a_running_loop_it_says_what_to_write(add):
    with pytest.raises(SyncCallError, match=r"use `await add.delay\(...\)`"):
        add.delay_sync(1)
    with pytest.raises(SyncCallError, match=r"use `await add.options\(...\).delay\(...\)`"):
        add.options(queue="high").delay_sync(1)


# --- registering ---------------------------------------------------------------------------------


@pytest.mark.parametrize("bare", [True, False], ids=["@app.task", "@app.task()"])
def test_a_task_is_registered_by_module_and_function(app, bare):
    def job() -> None: ...

    task = app.task(job) if bare else app.task()(job)

    assert task.name == f"{__name__}.{job.__qualname__}"
    assert app.tasks == {task.name: task}
    assert app.get_task(task.name) is task


def test_two_tasks_of_one_name_are_refused_with_both_places(app, add):
    with pytest.raises(DuplicateTaskError) as refused:

        @app.task(name="add")
        async def other() -> None: ...

    assert refused.value.first == add.place
    assert refused.value.second.startswith(__file__)
    assert app.get_task("add") is add


def test_a_task_that_is_not_there_is_missing_with_the_nearest_name(app, add):
    with pytest.raises(TaskNotFoundError, match="did you mean 'add'"):
        app.get_task("addd")


def test_the_tasks_are_there_to_read(app, add):
    assert (len(app.tasks), list(app.tasks), "add" in app.tasks) == (1, ["add"], True)
    with pytest.raises(TypeError):
        app.tasks["other"] = add


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"quue": "mail"}, "unknown option 'quue': did you mean 'queue'?"),
        ({"zzz": 1}, "unknown option 'zzz': no plugin that is loaded reads it"),
    ],
    ids=["misspelt", "unknown"],
)
def test_an_option_that_nobody_reads_is_refused(app, options, text):
    with pytest.raises(TaskDefinitionError, match=text.replace("?", r"\?")):

        @app.task(**options)
        async def job() -> None: ...


# --- annotations that name something later --------------------------------------------------------


async def test_a_type_may_be_defined_after_the_task(app, sent, monkeypatch):
    early, _ = postponed.register_early(app)
    monkeypatch.setattr(postponed, "Local", postponed.Later, raising=False)

    await early.options(queue="math").delay({"number": 3})

    assert (await sent())[1].argument_bytes().data == b'{"args":[{"number":3}],"kwargs":{}}'


async def test_a_type_that_is_never_defined_is_an_error_at_the_first_call(app):
    _, hopeless = postponed.register_early(app)

    with pytest.raises(TaskDefinitionError) as refused:
        await hopeless.delay({})

    assert "'Nowhere'" in str(refused.value)
    assert "a type must be importable at run time, not only under TYPE_CHECKING" in str(refused.value)


async def test_a_type_may_be_local_to_the_function_that_registers(app, sent):
    from pydantic import BaseModel

    class Order(BaseModel):
        number: int

    @app.task(queue="math")
    async def buy(order: "Order") -> "Order": ...

    await buy.delay(Order(number=3))

    assert (await sent())[1].argument_bytes().data == b'{"args":[{"number":3}],"kwargs":{}}'


async def test_a_task_without_backend_can_be_sent(make_app, store):
    app = make_app(backend=None)

    @app.task
    async def job() -> None: ...

    async with app:
        task_id = await job.send()

    assert list(store.messages) == [task_id]
