"""Read by mypy and pyright only: what must not type-check. An ignore that is not needed fails the check."""

from calls import Order, add, now, send_mail, shrink

from chicory import AsyncResult, TaskContext


async def wrong_arguments() -> None:
    await add.delay("1", 2)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await add.delay(1, 2, 3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await add.delay(1, c=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await add.options(queue="high").delay(None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await send_mail.delay("a@example.com")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await send_mail.delay(5, order=Order(id=1))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    shrink.delay_sync("text")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def the_context_is_not_passed(ctx: TaskContext) -> None:
    await send_mail.delay(ctx, "a@example.com", order=Order(id=1))  # type: ignore[arg-type, misc]  # pyright: ignore[reportCallIssue]


async def wrong_results() -> None:
    text: AsyncResult[str] = await add.delay(1)  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    number: int = await (await now.delay())  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    del text, number


async def unknown_options() -> None:
    add.options(quueue="high")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    add.options(countdown="10")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
