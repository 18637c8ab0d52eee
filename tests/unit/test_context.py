"""What a running task can ask and say about itself."""

import copy
from datetime import UTC, datetime

import pytest

from chicory import TaskContext
from chicory.errors import FinalError, RetryError
from chicory.message import TaskMessage

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def context(**fields):
    message = {name: fields.pop(name) for name in ("retries", "headers", "queue") if name in fields}
    return TaskContext(TaskMessage(id="m1", name="mail.send", **message), **{"app": None, **fields})


def test_it_tells_which_task_runs():
    ctx = context(queue="mail", headers={"trace": "t"}, retries=2, app="the app", deadline=NOW, max_retries=5)

    assert (ctx.task_id, ctx.task_name, ctx.queue, ctx.retries) == ("m1", "mail.send", "mail", 2)
    assert (ctx.headers, ctx.app, ctx.deadline, ctx.max_retries) == ({"trace": "t"}, "the app", NOW, 5)


def test_it_shows_what_matters():
    assert repr(context(retries=1, max_retries=3)) == "<TaskContext of mail.send m1, retry 1 of 3>"


@pytest.mark.parametrize(
    ("retries", "max_retries", "remaining", "is_last"),
    [
        (0, 0, 0, True),
        (0, 1, 1, False),
        (1, 1, 0, True),
        (0, 3, 3, False),
        (2, 3, 1, False),
        (3, 3, 0, True),
        (4, 3, 0, True),
    ],
    ids=["no policy", "first of one", "last of one", "first of three", "before the last", "the last", "beyond it"],
)
def test_it_knows_how_many_retries_are_left(retries, max_retries, remaining, is_last):
    ctx = context(retries=retries, max_retries=max_retries)

    assert (ctx.remaining_retries, ctx.is_last_retry) == (remaining, is_last)


@pytest.mark.parametrize("countdown", [None, 0, 2.5], ids=["by policy", "at once", "later"])
def test_a_retry_ends_the_try(countdown):
    with pytest.raises(RetryError) as retry:
        context().retry(countdown)

    assert (retry.value.countdown, retry.value.cause, retry.value.__cause__) == (countdown, None, None)


def test_a_retry_remembers_why():
    error = OSError("gone")

    with pytest.raises(RetryError) as retry:
        context().retry(exc=error)

    assert (retry.value.cause, retry.value.__cause__) == ("OSError: gone", error)


def test_a_retry_in_the_past_is_refused():
    with pytest.raises(ValueError, match="countdown must be 0 or more seconds, not -1"):
        context().retry(countdown=-1)


def test_a_failure_for_good_carries_its_error():
    error = LookupError("no such order")

    with pytest.raises(FinalError) as final:
        context().fail(error)

    assert (str(final.value), final.value.__cause__) == ("no such order", error)


def test_a_failure_for_good_may_be_a_text():
    with pytest.raises(FinalError) as final:
        context().fail("no such order")

    assert (str(final.value), final.value.__cause__) == ("no such order", None)


async def test_progress_is_reported():
    reported = []

    async def report(done, total):
        reported.append((done, total))

    await context(report=report).progress(1, 3)

    assert reported == [(1, 3)]


async def test_progress_of_a_task_that_is_called_directly_goes_nowhere():
    await context().progress(1, 3)


def test_it_can_be_copied():
    assert copy.copy(context(max_retries=3)).remaining_retries == 3
