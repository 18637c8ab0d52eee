"""What crosses the border between a worker and its children comes out as it went in, and nothing else gets through."""

import io
from datetime import UTC, datetime

import msgspec
import pytest

from chicory.border import (
    Import,
    Progressed,
    Raised,
    Ready,
    Retry,
    Returned,
    Run,
    Setup,
    frame,
    read_answer,
    read_order,
)
from chicory.codec import Arguments
from chicory.errors import RemoteError, RetryError
from chicory.home import Home
from chicory.launch import Launch
from chicory.testing import a_delivery

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ORDERS = [
    Setup(worker_id="w", path=["", "/far"], launch=Launch(plugins=("otel",)), log_level="INFO", log_format="json"),
    Import(home=Home(task="t", module="shop", file="/far/shop.py")),
    Run(task="t", delivery=a_delivery(), headers={"a": "b"}, started_at=NOW, deadline=None, keeps_results=True),
]
ANSWERS = [
    Ready(),
    Progressed(done=1, total=3),
    Returned(result=Arguments(content_type="application/json", data=b"\x00" * 100_000)),
    Returned(),
    Raised(kind="Busy", family=["shop.Busy"], text="it is", traceback="T", retry=Retry(countdown=3.0, cause="c")),
]


def kind_of(value):
    return type(value).__name__


@pytest.mark.parametrize("order", ORDERS, ids=kind_of)
def test_orders_arrive(order):
    stream = io.BytesIO(frame(order) * 2)

    assert [read_order(stream.read) for _ in range(3)] == [order, order, None]


@pytest.mark.parametrize("answer", ANSWERS, ids=kind_of)
async def test_answers_arrive(answer):
    stream = io.BytesIO(frame(answer))

    async def read(count):
        return stream.read(count)

    assert await read_answer(read) == answer


@pytest.mark.parametrize("cut", [3, 8, -1], ids=["in the length", "after the length", "in the body"])
def test_an_order_that_is_cut_off_is_the_end(cut):
    assert read_order(io.BytesIO(frame(ORDERS[1])[:cut]).read) is None


@pytest.mark.parametrize("said", [Ready(), Returned()], ids=kind_of)
def test_an_answer_is_no_order(said):
    with pytest.raises(msgspec.ValidationError):
        read_order(io.BytesIO(frame(said)).read)


def test_what_was_raised_becomes_an_error_of_its_name():
    error = Raised(kind="Busy", family=["shop.Busy", "builtins.OSError"], text="it is", traceback="T").exception()

    assert isinstance(error, RemoteError)
    assert (type(error).__qualname__, str(error), error.family, error.traceback) == (
        "Busy",
        "it is",
        ("shop.Busy", "builtins.OSError"),
        "T",
    )


@pytest.mark.parametrize(("cause", "kind"), [("Busy: it is", "Busy"), (None, None)], ids=["with a reason", "without"])
def test_a_retry_that_was_asked_for_is_one_again(cause, kind):
    error = Raised(
        kind="Busy", family=["shop.Busy"], text="it is", traceback="T", retry=Retry(countdown=3.0, cause=cause)
    ).exception()

    assert isinstance(error, RetryError)
    assert (error.countdown, error.cause, error.__notes__) == (3.0, cause, ["T"])
    assert (type(error.__cause__).__qualname__ if error.__cause__ else None) == kind
