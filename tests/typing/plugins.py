"""Read by mypy and pyright only: what a plugin writes."""

from collections.abc import Sequence

from chicory.plugin import (
    App,
    Attempt,
    ExecuteMiddleware,
    Next,
    Outcome,
    PublishMiddleware,
    PublishNext,
    Stage,
    TaskMessage,
    hookimpl,
)


async def count(attempt: Attempt, proceed: Next) -> Outcome:
    outcome = await proceed(attempt)
    print(attempt.task_name, outcome.has_failed)
    return outcome


async def stamp(messages: Sequence[TaskMessage], proceed: PublishNext) -> None:
    await proceed([message for message in messages if message.headers])


@hookimpl
def chicory_execute_middleware(app: App) -> list[ExecuteMiddleware]:
    return [ExecuteMiddleware(stage=Stage.OBSERVE, name="count", layer=count)]


@hookimpl
def chicory_publish_middleware(app: App) -> list[PublishMiddleware]:
    return [PublishMiddleware(stage=Stage.OBSERVE, name="stamp", layer=stamp)]
