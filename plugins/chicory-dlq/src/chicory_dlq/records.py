"""What the result backend says about dead letters that are replayed or deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from chicory.errors import BackendNotConfiguredError
from chicory.plugin import QueueBrowser, ResultRecord, TaskState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from chicory.plugin import App, Backend, Envelope
    from chicory_dlq.letters import DeadLetter

__all__ = ["Records", "browser_of"]


@final
class Records:
    """Keeps the records of dead letters true, where that is not the broker's own doing.

    Where broker and backend are one store, moving or deleting a message changes its record in the same step. Where they are
    two, a replay says PENDING first: the end of the replayed task would be refused while a record says DEAD_LETTERED.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    def _twin(self) -> tuple[Backend, bool] | None:
        """An unopened backend, and whether moving a message leaves its record as it is; None if no results are kept."""
        try:
            backend = self._app.backend_twin()
        except BackendNotConfiguredError:
            return None
        joined = backend.join(self._app.broker_twin())
        return backend, joined is None or not joined.tracks_pending

    async def before_replay(self, envelopes: Iterable[Envelope]) -> None:
        """Two stores: these are about to be waiting again. Safe to repeat; a later record is not overwritten."""
        twin = self._twin()
        if twin is not None and twin[1]:
            async with twin[0] as backend:
                await backend.store([_pending(envelope) for envelope in envelopes])

    async def after_replay(self, queue: str, envelopes: Mapping[str, Envelope], moved: Iterable[str]) -> None:
        """These have been moved from *queue*. A record that had expired is there again, for whoever waits for the new end.

        Two stores: what was not moved since it was deleted meanwhile has no record that says it waits.
        """
        twin = self._twin()
        if twin is None:
            return
        backend, is_apart = twin
        gone = set(moved)
        async with backend:
            if not is_apart:
                await backend.store([_pending(envelopes[task_id]) for task_id in gone])
                return
            left = [envelope for task_id, envelope in envelopes.items() if task_id not in gone]
            if left:
                await self._forget_deleted(backend, queue, left)

    async def _forget_deleted(self, backend: Backend, queue: str, left: Sequence[Envelope]) -> None:
        browser = browser_of(self._app)
        ids = [envelope.id for envelope in left]
        there = {m.envelope.id for m in await browser.get_messages(queue, ids)}
        for target in {envelope.queue for envelope in left}:
            there |= {m.envelope.id for m in await browser.get_messages(target, ids)}
        records = await backend.fetch(ids)  # looked at last: a task that ran meanwhile has said so before its message went
        hops = {envelope.id: envelope.hop for envelope in left}
        orphans = [
            record.id
            for record in records
            if record is not None
            and record.state is TaskState.PENDING
            and record.hop == hops[record.id]
            and record.id not in there
        ]
        if orphans:
            await backend.delete(orphans)

    async def after_delete(self, letters: Sequence[DeadLetter]) -> None:
        """These were deleted. Two stores: their records go too, unless they speak of a later message."""
        twin = self._twin()
        if twin is None or not twin[1] or not letters:
            return
        hops = {letter.id: letter.envelope.hop for letter in letters}
        async with twin[0] as backend:
            records = await backend.fetch(list(hops))
            gone = [record.id for record in records if record is not None and _speaks_of(record, hops[record.id])]
            if gone:
                await backend.delete(gone)


def browser_of(app: App) -> QueueBrowser:
    """The app's broker, for looking into queues; raises ``CapabilityError`` if it cannot."""
    return app.require(QueueBrowser)  # type: ignore[type-abstract] # a protocol is what components are asked for by


def _pending(envelope: Envelope) -> ResultRecord:
    return ResultRecord(id=envelope.id, state=TaskState.PENDING, hop=envelope.hop)


def _speaks_of(record: ResultRecord, hop: int) -> bool:
    """Whether it is that of the dead letter at *hop*, or says PENDING since a replay of it was cut off."""
    if record.state is TaskState.PENDING:
        return record.hop == hop + 1
    return record.state is TaskState.DEAD_LETTERED and record.hop <= hop
