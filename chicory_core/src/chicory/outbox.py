"""What a worker has to tell the broker: settlements and notes, sent in batches, kept until they are answered."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, final

from chicory.batch import Batcher
from chicory.errors import BackendError, BrokerError
from chicory.faultpoints import FaultPoint, reach
from chicory.logs import get_logger
from chicory.message import Settled, Settlement
from chicory.offers import SettledBatch
from chicory.verdict import started_record

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from chicory.backend import Backend, Joined
    from chicory.backoff import Backoff
    from chicory.lease import LeaseKeeper
    from chicory.message import Delivery, ResultRecord
    from chicory.middleware import Attempt
    from chicory.offers import SettleObserver

__all__ = ["Outbox"]

_BATCH = 500


@final
class Outbox:
    """Sends settlements until the store has answered them, or until their lease is lost.

    A store that is down costs no work: finished tasks wait here under leases that go on being renewed. *on_lost* is called
    for each delivery that turned out not to be ours any more, *on_room* whenever settlements were answered, and *observers*
    after each try.
    """

    def __init__(
        self,
        joined: Joined,
        backend: Backend | None,
        leases: LeaseKeeper,
        backoff: Backoff,
        *,
        on_lost: Callable[[Delivery], object],
        on_room: Callable[[], object],
        observers: Sequence[SettleObserver] = (),
    ) -> None:
        self._joined = joined
        self._backend = backend
        self._leases = leases
        self._backoff = backoff
        self._on_lost = on_lost
        self._on_room = on_room
        self._observers = observers
        self._notes: dict[str, Attempt] = {}
        self._note_check: asyncio.Handle | None = None
        self._settlements: Batcher[Settlement, Settled] = Batcher(self._flush, limit=_BATCH)
        self._records: Batcher[ResultRecord, bool] = Batcher(self._store, limit=_BATCH)
        self._log = get_logger("outbox")
        self.waiting = 0
        """Settlements that have not been answered yet."""
        self.is_blocked = False
        """The last try to reach the store failed."""

    def settle(self, settlement: Settlement) -> None:
        """End a delivery, with the next batch."""
        self._notes.pop(settlement.delivery.receipt, None)
        self.waiting += 1
        self._settlements.put(settlement)

    async def settled(self, settlements: Sequence[Settlement]) -> None:
        """End deliveries, and return when each has taken effect, or never can."""
        self.waiting += len(settlements)
        await asyncio.gather(*(self._settlements.add(settlement) for settlement in settlements))

    async def drain(self) -> None:
        """Return when everything has been answered."""
        await self._settlements.drain()
        await self._records.drain()

    def abort(self) -> None:
        """Give up what has not been answered: it comes again when its lease ends."""
        self._settlements.abort()
        self._records.abort()

    # --- notes (see ``execution.Notes``) ---------------------------------------------------------

    def started(self, attempt: Attempt) -> None:
        if self._backend is None:
            return
        self._notes[attempt.delivery.receipt] = attempt
        if self._note_check is None:
            # By the next turn of the loop most short tasks have ended and their notes are void.
            self._note_check = asyncio.get_running_loop().call_soon(self._check_notes)

    def progressed(self, attempt: Attempt) -> None:
        if attempt.settled:
            self.record(started_record(attempt, holds=True))
        else:
            self.started(attempt)

    async def give_up_first(self, attempt: Attempt) -> bool:
        result = started_record(attempt, holds=True) if self._backend is not None else None
        self.waiting += 1
        answer = self._settlements.add(Settlement(delivery=attempt.delivery, result=result))
        try:
            return await asyncio.shield(answer) is Settled.DONE
        except asyncio.CancelledError:
            attempt.settled = await answer is Settled.DONE  # on its way already: whoever cancels must know how it went
            raise

    def record(self, record: ResultRecord) -> None:
        """Store what an at-most-once task came to: its delivery is settled already."""
        if self._backend is not None:
            self._records.put(record)

    # --- sending -----------------------------------------------------------------------------------

    def _check_notes(self) -> None:
        self._note_check = None
        if self._notes and not self._settlements.is_busy:
            self._settlements.nudge()

    async def _flush(self, settlements: list[Settlement]) -> list[Settled]:
        answers: dict[str, Settled] = {}
        while True:
            ours = [s for s in settlements if self._leases.is_ours(s.delivery.receipt)]
            notes, self._notes = list(self._notes.values()), {}
            batch = ours + [Settlement(delivery=a.delivery, result=started_record(a), ends=False) for a in notes]
            if not batch:
                break
            reach(FaultPoint.BEFORE_SETTLE)
            began = time.perf_counter()
            try:
                replies = await self._send(batch)
            except (BrokerError, BackendError) as error:
                self._tell(batch, (), began, error)
                await self._wait_out(error)
                continue
            reach(FaultPoint.AFTER_SETTLE)
            self._tell(batch, replies, began)
            self._reached()
            answers = {s.delivery.receipt: reply for s, reply in zip(batch, replies, strict=True)}
            for lost in (s for s, reply in zip(batch, replies, strict=True) if reply is Settled.LOST):
                self._on_lost(lost.delivery)
            break
        for settlement in settlements:
            was_held = self._leases.release(settlement.delivery.receipt)
            if was_held and settlement.delivery.receipt not in answers:
                self._on_lost(settlement.delivery)  # withheld, and the lease thread had not noticed yet
        self.waiting -= len(settlements)
        self._on_room()
        return [answers.get(s.delivery.receipt, Settled.LOST) for s in settlements]

    async def _send(self, batch: Sequence[Settlement]) -> list[Settled]:
        try:
            return await self._joined.settle(batch)
        except (BrokerError, BackendError):
            raise
        except Exception as error:  # noqa: BLE001 - the edge of a plugin's code: one bad settlement must not hold up its neighbours
            if len(batch) > 1:
                return [reply for settlement in batch for reply in await self._send([settlement])]
            self._log.exception("settlement_refused", message_id=batch[0].delivery.envelope.id, exc_info=error)
            return [Settled.LOST]

    async def _store(self, records: list[ResultRecord]) -> Sequence[bool]:
        assert self._backend is not None, "records are only added where there is a backend"  # noqa: S101
        while True:
            reach(FaultPoint.BEFORE_RECORD)
            began = time.perf_counter()
            try:
                kept = await self._backend.store(records)
            except BackendError as error:
                self._tell((), (), began, error)
                await self._wait_out(error)
            else:
                self._reached()
                return kept

    def _tell(
        self, settlements: Sequence[Settlement], answers: Sequence[Settled], began: float, error: Exception | None = None
    ) -> None:
        if not self._observers:
            return
        seconds = time.perf_counter() - began
        batch = SettledBatch(settlements=settlements, answers=answers, seconds=seconds, error=error)
        for observer in self._observers:
            try:
                observer(batch)
            except Exception as failure:  # noqa: BLE001 - the edge of a plugin's code: whoever only looks stops no settling
                self._log.exception("settle_observer_failed", exc_info=failure)

    async def _wait_out(self, error: Exception) -> None:
        if not self.is_blocked:
            self._log.warning("settling_blocked", error_type=type(error).__qualname__, waiting=self.waiting)
        self.is_blocked = True
        await self._backoff.pause()

    def _reached(self) -> None:
        if self.is_blocked:
            self._log.info("settling_resumed", waiting=self.waiting)
        self.is_blocked = False
        self._backoff.reset()
