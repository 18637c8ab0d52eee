"""The onion around every execution and every publish: layers that may change what comes out.

A layer has a stage number; the lower, the further out. Layers of one stage are ordered by name.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, Any, final

from msgspec import Struct, field

from chicory.codec import Arguments, Document
from chicory.message import Delivery, Envelope, TaskMessage, TaskState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from chicory.config import WorkerConfig
    from chicory.task import Task

__all__ = [
    "Attempt",
    "Decision",
    "ExecuteLayer",
    "ExecuteMiddleware",
    "Next",
    "Outcome",
    "PublishLayer",
    "PublishMiddleware",
    "PublishNext",
    "Stage",
    "compose_execute",
    "compose_publish",
    "current_attempt",
    "failed",
    "in_order",
]


class Stage(IntEnum):
    """Where a layer stands. Numbers between are free to use."""

    OBSERVE = 100
    """Tracing and metrics: sees everything, changes nothing."""
    RECOVER = 300
    """Dead letters, and inside them retries: decides what a failure leads to."""
    ADMIT = 500
    """Expiry, delivery cap, limits: may refuse before anything of the task is decoded."""
    DECODE = 700
    """Raises the problem of an unreadable or unknown message; decodes and validates the arguments."""
    INNER = 900
    """Context, time-out, the call itself, encoding the result."""


class Decision(StrEnum):
    """What becomes of a delivery."""

    DONE = "done"
    """It has ended, well or (with an error) not."""
    RETRY = "retry"
    """The task is tried again, and the retry is counted."""
    REJECT = "reject"
    """It failed for good before, or regardless of, what its code would do."""
    DEFER = "defer"
    """The message is put back as if it had never been delivered."""


@final
class Attempt(Struct, kw_only=True, weakref=True):
    """One delivery on its way through the middleware; not shared, so its fields are filled in as they become known.

    ``problem`` says why ``message`` or ``task`` is None: the document could not be read, or the task is unknown here.
    ``args`` and ``kwargs`` are empty until the decode stage. ``settled`` is true once an at-most-once task was given up to its
    one run. ``ended`` is what a former delivery came to, whose worker died when it had stored that and not yet sent the
    message to its dead letter queue: it does not run again. ``config`` are the settings of the worker. ``stopped_for`` says
    why the worker cancels it, if it does: ``shutdown`` or ``lease_lost``.
    """

    delivery: Delivery
    worker_id: str
    document: Document | None = None
    message: TaskMessage | None = None
    task: Task[..., Any] | None = None
    problem: Exception | None = None
    args: list[Any] = field(default_factory=list)
    kwargs: dict[str, Any] = field(default_factory=dict)
    started_at: datetime | None = None
    progress: tuple[float, float] | None = None
    settled: bool = False
    ended: Outcome | None = None
    config: WorkerConfig | None = None
    stopped_for: str | None = None

    @property
    def task_name(self) -> str:
        """The task's name, or ``?`` for a message that cannot be read."""
        return self.message.name if self.message is not None else "?"


@final
class Outcome(Struct, frozen=True, kw_only=True):
    """What came of an attempt. Change it with ``msgspec.structs.replace``.

    An ``error`` with the decision DONE is a failure nobody has decided about yet; if ``final``, it is not to be retried.
    ``delay`` (seconds) belongs to RETRY and DEFER, ``reason`` (one word) to REJECT. ``publish`` are envelopes that follow.
    ``state`` overrides the final state that the decision implies. ``changes`` are document fields of the message put back.
    """

    value: Any = None
    result: Arguments | None = None
    error: BaseException | None = None
    final: bool = False
    decision: Decision = Decision.DONE
    delay: float = 0.0
    reason: str | None = None
    publish: tuple[Envelope, ...] = ()
    state: TaskState | None = None
    changes: dict[str, Any] = field(default_factory=dict)

    @property
    def has_failed(self) -> bool:
        """It ends, and not in success."""
        return self.error is not None and self.decision in (Decision.DONE, Decision.REJECT)


def failed(error: BaseException, *, final: bool = False) -> Outcome:
    """The outcome of an attempt that raised *error*."""
    return Outcome(error=error, final=final)


Next = Callable[[Attempt], Awaitable[Outcome]]
"""The rest of the onion: always returns an outcome; raises only ``asyncio.CancelledError``."""
ExecuteLayer = Callable[[Attempt, Next], Awaitable[Outcome]]
PublishNext = Callable[[Sequence[TaskMessage]], Awaitable[None]]
PublishLayer = Callable[[Sequence[TaskMessage], PublishNext], Awaitable[None]]


@final
class ExecuteMiddleware(Struct, frozen=True, kw_only=True):
    """A layer around executions. An exception that escapes it ends the attempt as an error."""

    stage: int
    name: str
    layer: ExecuteLayer


@final
class PublishMiddleware(Struct, frozen=True, kw_only=True):
    """A layer around publishes, over all messages of one batch: it may replace some, or leave some out.

    An exception that escapes it is raised by every ``delay`` of the batch; nothing of the batch was sent then.
    """

    stage: int
    name: str
    layer: PublishLayer


current_attempt: ContextVar[Attempt | None] = ContextVar("chicory_attempt", default=None)
"""The attempt that the running code belongs to: set in async tasks, and in the threads of sync ones."""


def in_order(layers: Iterable[ExecuteMiddleware | PublishMiddleware]) -> list[Any]:
    """*layers* from the outermost to the innermost: by stage, then by name."""
    return sorted(layers, key=lambda layer: (layer.stage, layer.name))


def compose_execute(layers: Sequence[ExecuteMiddleware]) -> Next:
    """The layers as one callable. *layers* stand in order; the last is the innermost and gets a ``next`` that refuses."""
    chain: Next = _beyond_the_end
    for middleware in reversed(layers):
        chain = _around(middleware, chain)
    return chain


def compose_publish(layers: Sequence[PublishMiddleware], innermost: PublishNext) -> PublishNext:
    """The layers around *innermost* as one callable."""
    chain = innermost
    for middleware in reversed(layers):
        chain = _publish_around(middleware.layer, chain)
    return chain


def _around(middleware: ExecuteMiddleware, inner: Next) -> Next:
    layer = middleware.layer

    async def run(attempt: Attempt) -> Outcome:
        try:
            outcome = await layer(attempt, inner)
        except Exception as error:  # noqa: BLE001 - the edge of a plugin's code: what escapes it is the attempt's error
            return failed(error)
        given: object = outcome  # plugins need not be type-checked
        if type(given) is not Outcome:
            return failed(
                TypeError(f"middleware {middleware.name!r} returned {type(given).__name__}, not an Outcome"), final=True
            )
        return outcome

    return run


def _publish_around(layer: PublishLayer, inner: PublishNext) -> PublishNext:
    def run(messages: Sequence[TaskMessage]) -> Awaitable[None]:
        return layer(messages, inner)

    return run


async def _beyond_the_end(attempt: Attempt) -> Outcome:
    raise AssertionError(f"nothing is inside the innermost layer (message {attempt.delivery.envelope.id})")
