"""A NATS broker and a NATS backend as one: three steps in an order in which a crash loses nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from chicory.plugin import ResultRecord, Settled, TaskState

if TYPE_CHECKING:
    from collections.abc import Sequence
    from collections.abc import Set as AbstractSet

    from chicory.plugin import Delivery, Envelope, Settlement
    from chicory_nats.backend import NatsBackend
    from chicory_nats.broker import NatsBroker

__all__ = ["JoinedNats"]

_PUT_BACK_KEPT = 86_400.0
"""Seconds for which the record of a message that was put back is kept, should the message be removed."""
_REFUSALS = 3
"""So often a start that somebody else has claimed comes again: until then, who claimed it in vain has said so."""


@final
class JoinedNats:
    """What follows is published, the record kept, and only then the message ended.

    A crash in between brings the message again. What its task publishes then is dropped as a repeat; and if the record was
    kept, the message is settled without running.
    """

    tracks_pending = False

    def __init__(self, broker: NatsBroker, backend: NatsBackend) -> None:
        self._broker, self._backend = broker, backend
        self._claims: dict[str, tuple[Delivery, ResultRecord]] = {}
        """Starts, by receipt, of what runs at most once, that are on record and not settled yet."""

    async def publish(self, envelopes: Sequence[Envelope]) -> None:
        await self._broker.publish(envelopes)

    async def settle(self, settlements: Sequence[Settlement]) -> list[Settled]:
        await self._broker.publish(self._broker.follow_ups(settlements))
        held = [settlement for settlement in settlements if self._broker.is_held(settlement.delivery)]
        refused = await self._claim(held)
        refused = {*refused, *await self._store([s for s in held if not _is_claim(s)])}
        ended = [s for s in settlements if s.delivery.receipt not in refused or _is_claim_too_often(s)]
        answers = dict(zip((s.delivery.receipt for s in ended), await self._broker.acknowledge(ended), strict=True))
        for receipt, answer in answers.items():
            if answer is Settled.DONE:
                self._claims.pop(receipt, None)
        return [
            Settled.LOST if s.delivery.receipt in refused else answers.get(s.delivery.receipt, Settled.LOST)
            for s in settlements
        ]

    async def _store(self, settlements: Sequence[Settlement]) -> AbstractSet[str]:
        """Keep the records; return the receipts of those that came late: somebody else has the message, and works on it."""
        by_receipt = {s.delivery.receipt: record for s in settlements if (record := s.result or _put_back(s)) is not None}
        kept = await self._backend.store(list(by_receipt.values()))
        late = {receipt: by_receipt[receipt].id for receipt, is_kept in zip(by_receipt, kept, strict=True) if not is_kept}
        if not late:
            return frozenset()
        found = await self._backend.fetch(list(late.values()))
        return {
            receipt
            for receipt, record in zip(late, found, strict=True)
            if record is not None and not record.state.is_terminal and record.holder is None
        }

    async def _claim(self, settlements: Sequence[Settlement]) -> AbstractSet[str]:
        """Put starts on record of what runs at most once; return the receipts of those that had started before.

        A server that was killed may hand out again what it had been told the end of.
        """
        claims = {s.delivery.receipt: s.result for s in settlements if s.result is not None and _is_claim(s)}
        if not claims:
            return frozenset()
        granted = await self._backend.claim(claims)
        for settlement in settlements:
            if settlement.delivery.receipt in granted and settlement.result is not None:
                self._claims[settlement.delivery.receipt] = (settlement.delivery, settlement.result)
        return claims.keys() - granted

    async def finished(self, deliveries: Sequence[Delivery]) -> AbstractSet[str]:
        """Looks up whatever may have been delivered before; a server that was killed has forgotten that it was.

        A record of a higher hop was written after what follows was published.
        """
        await self._unclaim()
        doubtful = [d for d in deliveries if not d.is_first or self._broker.may_be_repeated(d)]
        if not doubtful:
            return frozenset()
        records = await self._backend.fetch([delivery.envelope.id for delivery in doubtful])
        return frozenset(
            delivery.receipt
            for delivery, record in zip(doubtful, records, strict=True)
            if record is not None and _is_over(delivery.envelope.hop, record)
        )

    async def _unclaim(self) -> None:
        """What was claimed and could not be settled in time has not started here: others may."""
        for receipt, (delivery, record) in list(self._claims.items()):
            if not self._broker.is_held(delivery):
                await self._backend.unclaim(receipt, record, comes_again=await self._broker.is_there(delivery))
                self._claims.pop(receipt, None)


def _is_over(hop: int, record: ResultRecord) -> bool:
    return record.hop > hop or (record.hop == hop and record.state.is_terminal)


def _is_claim(settlement: Settlement) -> bool:
    """It says that a task starts that runs at most once."""
    record = settlement.result
    return settlement.ends and record is not None and record.holder is not None and not record.state.is_terminal


def _is_claim_too_often(settlement: Settlement) -> bool:
    return _is_claim(settlement) and settlement.delivery.delivery_count > _REFUSALS


def _put_back(settlement: Settlement) -> ResultRecord | None:
    """What a record says of a message that follows itself, unless its settlement says something else."""
    if settlement.result is not None:
        return None
    own = settlement.delivery.envelope.id
    hop = next((envelope.hop for envelope in settlement.publish if envelope.id == own), None)
    return None if hop is None else ResultRecord(id=own, state=TaskState.PENDING, hop=hop, ttl=_PUT_BACK_KEPT)
