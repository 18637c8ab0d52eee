"""Read by mypy and pyright only: calls keep the types of the functions they are made from."""

import datetime as dt
from typing import Any, assert_type

from pydantic import BaseModel

from chicory import AsyncResult, Chicory, RetryPolicy, Task, TaskContext, TaskResult, TaskState


class Order(BaseModel):
    id: int


app = Chicory(broker="memory://")


@app.task
async def add(a: int, b: int = 0) -> int:
    return a + b


@app.task(name="mail.send", queue="mail", retry_policy=RetryPolicy(max_retries=5), timeout=30, priority=5)
async def send_mail(ctx: TaskContext, to: str, *, order: Order) -> list[str]:
    assert_type(ctx.retries, int)
    assert_type(ctx.deadline, dt.datetime | None)
    return [to, str(order.id)]


@app.task()
def shrink(ctx: TaskContext, data: bytes) -> bytes:
    return data[: ctx.remaining_retries]


@app.task
def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


async def calls() -> None:
    assert_type(await add.delay(1, 2), AsyncResult[int])
    assert_type(await add.delay(a=1), AsyncResult[int])
    assert_type(await (await add.delay(1)), int)
    assert_type(await add.send(1, b=2), str)
    assert_type(await add(1, 2), int)
    assert_type(await send_mail.delay("a@example.com", order=Order(id=1)), AsyncResult[list[str]])
    assert_type(await send_mail("a@example.com", order=Order(id=1)), list[str])
    assert_type(await add.options(queue="high", countdown=10, priority=9).delay(1, 2), AsyncResult[int])
    assert_type(await add.delay_many([(1, 2), {"a": 3}]), list[AsyncResult[int]])
    assert_type(await app.send_task("mail.send", args=["a"], kwargs={}), AsyncResult[Any])


def calls_from_sync_code() -> None:
    result = shrink.delay_sync(b"abc")
    assert_type(result, AsyncResult[bytes])
    assert_type(result.get_sync(timeout=5), bytes)
    assert_type(shrink(b"abc"), bytes)
    assert_type(now(), dt.datetime)


async def handles() -> None:
    result = await now.delay()
    assert_type(await result.get(timeout=1.5), dt.datetime)
    assert_type(await result.state(), TaskState)
    assert_type(await result.ready(), bool)
    assert_type(await result.info(), TaskResult)
    by_hand: AsyncResult[dt.datetime] = AsyncResult(result.task_id, app.backend)
    assert_type(await by_hand, dt.datetime)


def registry() -> None:
    assert_type(app.get_task("mail.send"), Task[..., Any])
    assert_type(app.tasks["mail.send"], Task[..., Any])
