"""What event loops ask of the engine's thread, and how they get their answers."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, final

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable, Sequence

    from chicory_sqlite.tables import Tables

__all__ = ["Receive", "Request", "Wait", "answer"]


class Request:
    """One operation asked for by some event loop."""

    __slots__ = ("error", "future", "is_write", "operation", "result")

    def __init__(self, operation: Callable[[Tables], Any], future: asyncio.Future[Any] | None, *, is_write: bool) -> None:
        self.operation, self.future, self.is_write = operation, future, is_write
        self.result: Any = None
        self.error: Exception | None = None

    @property
    def is_abandoned(self) -> bool:
        """Whoever asked does not wait any more."""
        return self.future is not None and self.future.cancelled()


@final
class Receive(Request):
    """A request for deliveries; it waits in the engine, without occupying its loop, until there are some."""

    __slots__ = ("change", "deadline", "limit", "owner", "queues")

    def __init__(self, queues: Sequence[str], limit: int, owner: str, deadline: float, future: asyncio.Future[Any]) -> None:
        super().__init__(lambda tables: tables.messages.claim(queues, limit, owner), future, is_write=True)
        self.queues = frozenset(queues)
        self.deadline = deadline
        self.change = 0.0
        """When something may become ready by itself (monotonic)."""


@final
class Wait(Request):
    """A request for the terminal record of one id."""

    __slots__ = ("exists", "task_id")

    def __init__(self, task_id: str, future: asyncio.Future[Any], *, exists: bool) -> None:
        super().__init__(lambda tables: tables.records.fetch([task_id]), future, is_write=False)
        self.task_id, self.exists = task_id, exists


def answer(requests: Iterable[Request], give_back: Callable[[Sequence[Request]], None]) -> None:
    """Bring results to the loops that asked, with one wake-up each; *give_back* gets those that nobody waits for."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Request]] = defaultdict(list)
    for request in requests:
        if request.future is not None:
            by_loop[request.future.get_loop()].append(request)
    for loop, mine in by_loop.items():
        try:
            loop.call_soon_threadsafe(_deliver, mine, give_back)
        except RuntimeError:  # that loop is closed
            give_back(mine)


def _deliver(requests: Sequence[Request], give_back: Callable[[Sequence[Request]], None]) -> None:
    """On the loop that asked."""
    gone = []
    for request in requests:
        assert request.future is not None, "only those with a future are answered"  # noqa: S101
        if request.future.done():
            gone.append(request)
        elif request.error is not None:
            request.future.set_exception(request.error)
        else:
            request.future.set_result(request.result)
    give_back(gone)
