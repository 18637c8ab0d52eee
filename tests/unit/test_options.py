"""The options of tasks and calls, checked once."""

import functools
import sys
from datetime import UTC, datetime, timedelta, timezone
from types import ModuleType
from types import SimpleNamespace as Namespace

import pytest

from chicory.errors import TaskDefinitionError
from chicory.message import DeliveryMode, ValidationMode
from chicory.options import (
    CallOptions,
    TaskOptions,
    check_id,
    check_priority,
    check_queue,
    default_name,
    message_for,
    options_for,
    place_of,
)
from chicory.retry import RetryPolicy

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DEFAULTS = TaskOptions(name="?")


def sync(): ...


async def asynchronous(): ...


# --- of tasks ------------------------------------------------------------------------------------


def test_what_is_not_given_is_as_the_app_says():
    defaults = TaskOptions(name="?", validation_mode=ValidationMode.STRICT, delivery_mode=DeliveryMode.AT_MOST_ONCE)

    options = options_for(asynchronous, defaults, {"queue": "mail", "validation_mode": None})

    assert (options.queue, options.validation_mode) == ("mail", ValidationMode.STRICT)
    assert options.delivery_mode is DeliveryMode.AT_MOST_ONCE


@pytest.mark.parametrize(
    ("function", "given", "execution"),
    [
        (asynchronous, {}, "async"),
        (sync, {}, "thread"),
        (sync, {"execution": "thread"}, "thread"),
        (sync, {"execution": "process"}, "process"),
    ],
    ids=["async", "sync", "sync, said so", "in a process"],
)
def test_a_function_runs_where_its_kind_runs(function, given, execution):
    assert options_for(function, DEFAULTS, given).execution == execution


def test_a_wrapped_async_function_is_async():
    @functools.wraps(asynchronous)
    def wrapped(*args): ...

    assert options_for(wrapped, DEFAULTS, {}).execution == "async"


@pytest.mark.parametrize(
    ("function", "given", "problem"),
    [
        (sync, {"name": "send mail"}, "a name has 1 to 200 letters, digits, and . _ : - < >; pass name=..."),
        (sync, {"name": "x" * 201}, "a name has 1 to 200 letters, digits, and . _ : - < >; pass name=..."),
        (sync, {"queue": "a,b"}, "a queue name has 1 to 100 letters, digits, and . _ : -, which 'a,b' is not"),
        (sync, {"priority": 10}, "priority must be a whole number from 0 to 9, not 10"),
        (sync, {"priority": True}, "priority must be a whole number from 0 to 9, not True"),
        (sync, {"timeout": 0}, "timeout must be more than 0 seconds, not 0"),
        (sync, {"expires": -1.5}, "expires must be more than 0 seconds, not -1.5"),
        (sync, {"execution": "fiber"}, "execution must be one of async, thread, process, not 'fiber'"),
        (sync, {"execution": "async"}, "a sync function runs in a thread or a process, not with execution='async'"),
        (asynchronous, {"execution": "thread"}, "an async function runs on the event loop, not with execution='thread'"),
        (asynchronous, {"execution": "process"}, "an async function runs on the event loop, not with execution='process'"),
        (
            sync,
            {"delivery_mode": DeliveryMode.AT_MOST_ONCE, "retry_policy": RetryPolicy()},
            "a task that runs at most once is never retried: drop its retry_policy, or its delivery_mode",
        ),
    ],
    ids=[
        "space in the name",
        "long name",
        "queue",
        "priority",
        "priority of another type",
        "timeout",
        "expires",
        "execution",
        "sync on the loop",
        "async in a thread",
        "async in a process",
        "at most once with retries",
    ],
)
def test_options_that_make_no_sense_are_refused_with_the_task(function, given, problem):
    with pytest.raises(TaskDefinitionError) as refused:
        options_for(function, DEFAULTS, given)

    assert refused.value.problem == problem
    assert refused.value.task == given.get("name", f"{__name__}.{function.__name__}")


def test_a_task_is_called_by_its_module_and_function():
    assert options_for(sync, DEFAULTS, {}).name == f"{__name__}.sync"
    assert options_for(sync, DEFAULTS, {"name": "mail.send"}).name == "mail.send"


@pytest.mark.parametrize(
    ("main", "name"),
    [
        ({"__spec__": Namespace(name="shop.tasks"), "__file__": "/somewhere/shop/tasks.py"}, "shop.tasks.job"),
        ({"__spec__": None, "__file__": "/somewhere/tasks.py"}, "tasks.job"),
        ({"__spec__": None}, "__main__.job"),
    ],
    ids=["python -m shop.tasks", "python tasks.py", "a prompt"],
)
def test_a_task_of_a_script_is_called_as_if_it_were_imported(main, name, monkeypatch):
    module = ModuleType("__main__")
    module.__dict__.update(main)
    monkeypatch.setitem(sys.modules, "__main__", module)

    def job(): ...

    job.__module__, job.__qualname__ = "__main__", "job"

    assert default_name(job) == name


def test_a_function_is_found_by_file_and_line():
    assert place_of(sync) == f"{__file__}:{sync.__code__.co_firstlineno}"
    assert place_of(len) == repr(len)


# --- of calls ------------------------------------------------------------------------------------

TASK = TaskOptions(name="mail.send", queue="mail", priority=3, expires=60.0)


def test_a_call_without_options_is_as_its_task_says():
    message = message_for(TASK, CallOptions(), (1,), {"y": 2}, NOW)

    assert (message.name, message.queue, message.priority, message.enqueued_at) == ("mail.send", "mail", 3, NOW)
    assert (message.args, message.kwargs, message.retries, message.eta) == ((1,), {"y": 2}, 0, None)
    assert message.expires == NOW + timedelta(seconds=60)


def test_the_options_of_a_call_beat_those_of_its_task():
    options = CallOptions(queue="high", priority=0, expires=5, task_id="order-17", headers={"trace": "t"})

    message = message_for(TASK, options, (), {}, NOW)

    assert (message.queue, message.priority, message.id, message.headers) == ("high", 0, "order-17", {"trace": "t"})
    assert message.expires == NOW + timedelta(seconds=5)


INDIA = timezone(timedelta(hours=5, minutes=30))


@pytest.mark.parametrize(
    ("given", "eta", "expires"),
    [
        ({"countdown": 10}, NOW + timedelta(seconds=10), None),
        ({"countdown": 0}, NOW, None),
        ({"countdown": 0.5}, NOW + timedelta(seconds=0.5), None),
        ({"eta": NOW.astimezone(INDIA)}, NOW, None),
        ({"expires": NOW.astimezone(INDIA)}, None, NOW),
        ({"expires": 2.5}, None, NOW + timedelta(seconds=2.5)),
    ],
    ids=["countdown", "at once", "part of a second", "eta elsewhere", "expires elsewhere", "expires in"],
)
def test_moments_are_counted_from_now_and_kept_in_utc(given, eta, expires):
    message = message_for(TaskOptions(name="add"), CallOptions(**given), (), {}, NOW)

    assert (message.eta, message.expires) == (eta, expires)
    assert {moment.tzinfo for moment in (message.eta, message.expires) if moment} == {UTC}


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"queue": ""}, "a queue name has 1 to 100 letters, digits, and . _ : -, which '' is not"),
        ({"queue": "a b"}, "which 'a b' is not"),
        ({"priority": -1}, "priority must be a whole number from 0 to 9, not -1"),
        ({"priority": 2.0}, "priority must be a whole number from 0 to 9, not 2.0"),
        ({"countdown": -1}, "countdown must be 0 or more seconds, not -1"),
        ({"countdown": 1, "eta": NOW}, "give countdown (seconds from now) or eta (a moment), not both"),
        ({"eta": NOW.replace(tzinfo=None)}, "eta must be an aware datetime"),
        ({"expires": NOW.replace(tzinfo=None)}, "expires must be an aware datetime"),
        ({"task_id": ""}, "a task id has 1 to 200 printable characters without spaces"),
        ({"task_id": "order 17"}, "a task id has 1 to 200 printable characters without spaces"),
    ],
    ids=[
        "no queue",
        "space in the queue",
        "priority",
        "priority of another type",
        "countdown",
        "both",
        "naive eta",
        "naive expires",
        "no id",
        "space in the id",
    ],
)
def test_options_of_a_call_that_make_no_sense_are_refused(given, text):
    with pytest.raises(ValueError) as refused:
        CallOptions(**given)

    assert text in str(refused.value)


def test_every_call_has_an_id_of_its_own():
    made = {message_for(TASK, CallOptions(), (), {}, NOW).id for _ in range(3)}

    assert len(made) == 3


@pytest.mark.parametrize(
    ("check", "value"),
    [
        (check_queue, "mail.high:v-2_x"),
        (check_queue, "q" * 100),
        (check_priority, 0),
        (check_priority, 9),
        (check_id, "order-17/ü"),
        (check_id, "x" * 200),
    ],
    ids=["queue", "long queue", "lowest", "highest", "id", "long id"],
)
def test_what_fits_every_broker_passes(check, value):
    check(value)


@pytest.mark.parametrize(
    ("check", "value"),
    [
        (check_queue, "q" * 101),
        (check_queue, "a/b"),
        (check_queue, "a\n"),
        (check_id, "x" * 201),
        (check_id, "a\n"),
        (check_id, "a\x00"),
    ],
    ids=["long queue", "slash", "queue with a line", "long id", "id with a line", "id with a zero"],
)
def test_what_does_not_fit_every_broker_is_refused(check, value):
    with pytest.raises(ValueError):
        check(value)
