"""The backend contract: what keeps results, and how it and a broker work as one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self, final

from chicory.broker import Opened
from chicory.faultpoints import FaultPoint, reach
from chicory.message import Settled

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from chicory.broker import Broker
    from chicory.message import Delivery, Envelope, ResultRecord, Settlement, WorkerStats

__all__ = ["Backend", "Joined", "StoreThenSettle", "store_then_settle"]


class Joined(Protocol):
    """A broker and a backend, seen by the worker and the client as one.

    Where both are one store, each of these is one step; else see `StoreThenSettle` for what is promised.
    """

    tracks_pending: bool
    """A record says PENDING from the moment of publishing, so that an unknown id is known to be unknown."""

    async def publish(self, envelopes: Sequence[Envelope]) -> None:
        """Accept *envelopes*; where ``tracks_pending``, the record of each id says PENDING at the envelope's hop.

        A repeat is dropped, as in ``Broker.publish``. Where ``tracks_pending``, so is an id whose record is of the same or a
        higher hop, for as long as that record lives.
        """
        ...

    async def settle(self, settlements: Sequence[Settlement]) -> list[Settled]:
        """As ``Broker.settle``; the ``result`` of each is stored too, unless its answer is LOST or GONE.

        A follow-up's record says PENDING, unless the settlement carries a result for that id.
        """
        ...

    async def finished(self, deliveries: Sequence[Delivery]) -> Mapping[str, ResultRecord] | AbstractSet[str]:
        """The receipts of those whose task has ended although they were delivered: settle them, don't run them.

        Where an end is recorded before what follows it is published, they come with their records: one that says
        DEAD_LETTERED one hop further (see `ResultRecord.buries`) is of a message that may not have reached its dead letter
        queue, and is sent there.
        """
        ...


class Backend(Opened, Protocol):
    """Keeps one record per task id, and the heartbeats of the workers.

    Promised: what ``store`` accepted is what ``fetch`` and ``wait`` return, in every process, until its ttl has passed.
    Every method may raise ``BackendConnectionError``; all are safe to repeat.
    """

    @property
    def address(self) -> str:
        """Where it is, for people: a URL without password."""
        ...

    async def store(self, records: Sequence[ResultRecord]) -> list[bool]:
        """Keep each record unless ``ResultRecord.may_follow`` forbids it against the one that is there; True where kept."""
        ...

    async def fetch(self, ids: Sequence[str]) -> list[ResultRecord | None]:
        """The record of each id, in the order asked for; None for those that are unknown or expired."""
        ...

    async def wait(self, task_id: str, *, exists: bool) -> ResultRecord | None:
        """The record of *task_id* once it is terminal, pushed: it looks at once, then hears of changes in any process.

        None when the record is gone (deleted, or expired). An id that has no record yet counts as gone if *exists* is true,
        and is waited for if not; cancel to stop.
        """
        ...

    async def delete(self, ids: Sequence[str]) -> int:
        """Forget these ids, except those whose message still waits or runs; return how many were forgotten."""
        ...

    async def beat(self, stats: WorkerStats, ttl: float) -> None:
        """Keep *stats* as the newest heartbeat of its worker; it counts as live for *ttl* seconds from now."""
        ...

    async def heartbeats(self) -> list[tuple[WorkerStats, bool]]:
        """The newest heartbeat of every worker not yet dropped, and whether it is live, ordered by worker id."""
        ...

    async def drop_workers(self, worker_ids: Sequence[str]) -> int:
        """Forget the heartbeats of these workers; return how many there were."""
        ...

    async def held(self) -> Mapping[str, Sequence[ResultRecord]]:
        """By worker: the records with a ``holder`` that are not terminal (tasks that run at most once, and have started)."""
        ...

    async def health(self) -> None:
        """Return if the backend answers.

        Raises:
            BackendConnectionError: it does not.
        """
        ...

    def join(self, broker: Broker) -> Joined | None:
        """This backend and *broker* as one, if both are the same store; else None. Called before either is opened."""
        ...

    def twin(self) -> Self:
        """An unopened copy for another event loop."""
        ...


@final
class StoreThenSettle:
    """A broker, and a backend somewhere else (or none).

    Publishing writes no PENDING record. Settling stores the results first: a crash between the two runs the task's message
    again, finds that its task has ended, and settles it without running it.
    """

    tracks_pending = False

    def __init__(self, broker: Broker, backend: Backend | None) -> None:
        self._broker = broker
        self._backend = backend

    async def publish(self, envelopes: Sequence[Envelope]) -> None:
        await self._broker.publish(envelopes)

    async def settle(self, settlements: Sequence[Settlement]) -> list[Settled]:
        late = await self._store([settlement for settlement in settlements if settlement.result is not None])
        if not late:
            return await self._broker.settle(settlements)
        rest = [settlement for settlement in settlements if settlement.delivery.receipt not in late]
        answers = iter(await self._broker.settle(rest) if rest else ())
        return [Settled.LOST if s.delivery.receipt in late else next(answers) for s in settlements]

    async def _store(self, settlements: Sequence[Settlement]) -> AbstractSet[str]:
        """Store results; the receipts of those whose message must be let be: it was delivered anew, and is in work there.

        A fence would notice that; without one, a late settlement would end a message that only its new holder may end.
        """
        records = [settlement.result for settlement in settlements if settlement.result is not None]
        if self._backend is None or not records:
            return frozenset()
        kept = await self._backend.store(records)
        reach(FaultPoint.BETWEEN_STORE_AND_SETTLE)
        if self._broker.capabilities.fenced or all(kept):
            return frozenset()
        refused = [s.delivery for s, is_kept in zip(settlements, kept, strict=True) if not is_kept]
        found = await self._backend.fetch([delivery.envelope.id for delivery in refused])
        return {
            delivery.receipt
            for delivery, record in zip(refused, found, strict=True)
            if record is not None and not record.state.is_terminal
        }

    async def finished(self, deliveries: Sequence[Delivery]) -> Mapping[str, ResultRecord]:
        doubtful = [delivery for delivery in deliveries if not delivery.is_first]
        if self._backend is None or not doubtful:
            return {}
        records = await self._backend.fetch([delivery.envelope.id for delivery in doubtful])
        return {
            delivery.receipt: record
            for delivery, record in zip(doubtful, records, strict=True)
            if record is not None and record.ends(delivery.envelope.hop)
        }


def store_then_settle(broker: Broker, backend: Backend | None) -> Joined:
    """The way to settle when broker and backend are not one store."""
    return StoreThenSettle(broker, backend)
