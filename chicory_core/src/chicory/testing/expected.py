"""What a broker must answer after any history: queues as a plain dictionary, without leases that run or files that sync.

`BrokerModel` plays the history to a broker and to this, and compares. Where the contract leaves a choice, this allows each;
where time makes an answer uncertain (a lease that ends while the broker is asked), too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from msgspec import Struct

from chicory.message import Settled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from chicory.broker import Capabilities, QueuedMessage, QueueStats
    from chicory.message import Delivery, Envelope, Settlement

__all__ = ["ExpectedMessage", "ExpectedQueues", "Moment"]

_CLOSE = 1e-3
"""Seconds by which two moments must differ for their order to mean something."""
_CERTAINTY = 2.0
"""Seconds after the end of the dedup window from which an id is surely free again."""


@final
class Moment(Struct, frozen=True):
    """When something was asked of the broker: not before ``begin`` and not after ``end`` (equal where the clock stands)."""

    begin: float
    end: float


class ExpectedMessage:
    """One message that the broker must have."""

    __slots__ = ("count", "due", "envelope", "grain", "is_first_use", "lapsed", "order", "receipt", "until")

    def __init__(self, envelope: Envelope, at: Moment, order: int, *, is_first_use: bool, grain: float) -> None:
        self.envelope, self.order, self.is_first_use = envelope, order, is_first_use
        self.grain = grain
        self.due = at.begin if envelope.due is None else envelope.due.timestamp()
        self.count = 0
        self.receipt: str | None = None
        """Of the delivery that has it, until another follows."""
        self.until = Moment(0.0, 0.0)
        """When its lease ends."""
        self.lapsed = False
        """It was delivered once, and its consumer was told that it is lost."""

    def is_surely_leased(self, at: Moment) -> bool:
        return self.receipt is not None and at.end < self.until.begin - _CLOSE

    def may_be_leased(self, at: Moment) -> bool:
        return self.receipt is not None and at.begin <= self.until.end + _CLOSE

    def is_overdue(self, at: Moment) -> bool:
        """It was leased, and may be taken by others now."""
        return self.receipt is not None and not self.is_surely_leased(at)

    def is_surely_ready(self, at: Moment, *, promptly: bool) -> bool:
        if self.receipt is not None or self.lapsed:
            return promptly and not self.may_be_leased(at)
        return self.due <= at.begin - self.grain or self.envelope.due is None

    def may_be_ready(self, at: Moment) -> bool:
        return not self.is_surely_leased(at) and (self.count > 0 or self.due <= at.end + _CLOSE)

    def comes_before(self, other: ExpectedMessage) -> bool:
        """Whether the contract says so: by priority, then by the time they became due; repeats are left out of it."""
        if self.count or other.count:
            return False
        if self.envelope.priority != other.envelope.priority:
            return self.envelope.priority > other.envelope.priority
        if abs(self.due - other.due) > self.grain:
            return self.due < other.due
        is_plain = all(m.is_first_use and m.envelope.due is None for m in (self, other))
        return is_plain and self.order < other.order


@final
class ExpectedQueues:
    """The messages that a broker with these *capabilities* must have.

    *promptly*: a lease that has ended is seen by the very next receive, not only soon. *grain*: seconds by which what is
    delayed may be late, and in which what becomes due may come in another order.
    """

    def __init__(self, capabilities: Capabilities, lease: float, *, promptly: bool, grain: float = 0.0) -> None:
        self.capabilities, self.lease, self.promptly = capabilities, lease, promptly
        self.grain = max(_CLOSE, grain)
        self.messages: dict[str, ExpectedMessage] = {}
        self.receipts: dict[str, set[str]] = {}
        """Of all deliveries so far, by dedup key: one that is published anew may use its receipts again."""
        self.published: dict[str, Moment] = {}
        """When each dedup key was published last."""
        self.ended: dict[str, tuple[Envelope, Moment]] = {}
        """The last envelope of each id that was settled, and when."""
        self.forgotten: set[str] = set()
        """Ids that were purged or deleted: whether their dedup keys are remembered is left open."""
        self._used: set[str] = set()
        self._orders = 0

    # --- publishing ------------------------------------------------------------------------------

    def publish(self, envelope: Envelope, at: Moment) -> None:
        """It is accepted, and is the message of its id from now on."""
        self._orders += 1
        is_first_use = envelope.id not in self._used
        self._used.add(envelope.id)
        self.messages[envelope.id] = ExpectedMessage(envelope, at, self._orders, is_first_use=is_first_use, grain=self.grain)
        self.published[envelope.dedup_key] = at
        self.receipts.pop(envelope.dedup_key, None)
        self.ended.pop(envelope.id, None)
        self.forgotten.discard(envelope.id)

    def is_dropped(self, envelope: Envelope, at: Moment) -> bool | None:
        """Whether a second publish of *envelope* is dropped; None where the contract does not say."""
        window = self.capabilities.dedup_window
        before = self.published.get(envelope.dedup_key)
        if envelope.id in self.forgotten or not window:
            return None
        if before is not None and at.end < before.begin + window - _CLOSE:
            return True
        if envelope.id in self.messages:
            return None
        ended = self.ended.get(envelope.id)
        return False if ended is None or at.begin > ended[1].end + window + _CERTAINTY else None

    # --- receiving -------------------------------------------------------------------------------

    def of(self, queue: str) -> list[ExpectedMessage]:
        return [message for message in self.messages.values() if message.envelope.queue == queue]

    def ready(self, queue: str, at: Moment) -> list[ExpectedMessage]:
        """What a receive must find in *queue*."""
        return [m for m in self.of(queue) if m.is_surely_ready(at, promptly=self.promptly)]

    def received(self, deliveries: Sequence[Delivery], queues: Sequence[str], limit: int, at: Moment) -> None:
        """Compare what came with what had to come, and take note of it."""
        ids = [delivery.envelope.id for delivery in deliveries]
        assert len(ids) <= limit, f"asked for {limit}, got {len(ids)}"
        assert len(set(ids)) == len(ids), f"one message twice in one answer: {ids}"
        for delivery in deliveries:
            self._check(delivery, queues, at)
        self._check_choice(deliveries, queues, limit, at)
        for delivery in deliveries:
            message = self.messages[delivery.envelope.id]
            message.count, message.receipt, message.lapsed = message.count + 1, delivery.receipt, False
            message.until = self._lease_from(at)
            self.receipts.setdefault(message.envelope.dedup_key, set()).add(delivery.receipt)

    def _lease_from(self, at: Moment) -> Moment:
        return Moment(at.begin + self.lease, at.end + self.lease)

    def _check(self, delivery: Delivery, queues: Sequence[str], at: Moment) -> None:
        envelope = delivery.envelope
        message = self.messages.get(envelope.id)
        assert message is not None, f"{envelope.id} came, which was settled, removed, or never published"
        assert envelope == message.envelope, f"{envelope} came, {message.envelope} was published"
        assert envelope.queue in queues, f"{envelope.id} came from {envelope.queue}, asked for {queues}"
        assert message.may_be_ready(at), f"{envelope.id} came under a live lease, or before it was due"
        expected = message.count + 1
        assert delivery.delivery_count == expected, f"{envelope.id}: count {delivery.delivery_count}, not {expected}"
        assert abs(delivery.lease_seconds - self.lease) < _CLOSE, f"{envelope.id}: a lease of {delivery.lease_seconds} s"
        assert delivery.receipt not in self.receipts.get(envelope.dedup_key, ()), (
            f"{envelope.id}: {delivery.receipt} names two deliveries"
        )

    def _check_choice(self, deliveries: Sequence[Delivery], queues: Sequence[str], limit: int, at: Moment) -> None:
        """Of what was ready, the right ones came, in the right order."""
        taken = {d.envelope.id: d for d in deliveries}
        left = [m for queue in queues for m in self.ready(queue, at) if m.envelope.id not in taken]
        assert not left or len(taken) == limit, f"{[m.envelope.id for m in left]} were ready and did not come"
        came = [self.messages[i] for i in taken]
        places = [queues.index(m.envelope.queue) for m in came]
        assert places == sorted(places), f"queues in another order than {queues}: {list(taken)}"
        for message in left:
            passed = [m.envelope.id for m in came if _should_yield(m, message, queues)]
            assert not passed, f"{passed} came before {message.envelope.id}"
        for index, later in enumerate(came):
            wrong = [m.envelope.id for m in came[:index] if _should_yield(m, later, queues)]
            assert not wrong, f"{wrong} came before {later.envelope.id}"

    # --- settling and extending ------------------------------------------------------------------

    def answers(self, delivery: Delivery, at: Moment) -> set[Settled]:
        """How a settlement of *delivery* may be answered now."""
        message = self.messages.get(delivery.envelope.id)
        if message is None or message.envelope.hop != delivery.envelope.hop:
            return {Settled.GONE}
        if message.receipt != delivery.receipt:
            return {Settled.LOST} if self.capabilities.fenced else {Settled.LOST, Settled.DONE}
        return {Settled.DONE} if message.is_surely_leased(at) else {Settled.DONE, Settled.LOST}

    def settled(self, settlement: Settlement, answer: Settled, at: Moment) -> None:
        """Take note of an answer that was allowed."""
        own = settlement.delivery.envelope
        message = self.messages.get(own.id)
        if answer is Settled.LOST:
            self._lose(settlement.delivery)
        if message is None or answer is not Settled.DONE or not settlement.ends:
            return
        self.remove(own.id, at)
        for envelope in settlement.publish:
            if envelope.id == own.id or self.is_dropped(envelope, at) is not True:
                self.publish(envelope, at)

    def extended(self, deliveries: Sequence[Delivery], lost: set[str], at: Moment) -> None:
        """Compare what *lost* says with what had to be lost, and take note of it."""
        unknown = lost - {delivery.receipt for delivery in deliveries}
        assert not unknown, f"nobody asked for {unknown}"
        for delivery in deliveries:
            message = self.messages.get(delivery.envelope.id)
            is_ours = message is not None and message.receipt == delivery.receipt
            if delivery.receipt in lost:
                surely = message is not None and is_ours and message.is_surely_leased(at)
                assert not surely, f"{delivery.receipt} is held, and was called lost"
                self._lose(delivery)
            else:
                assert is_ours, f"{delivery.receipt} is lost, and was extended"
                assert message is not None
                message.until = self._lease_from(at)

    def _lose(self, delivery: Delivery) -> None:
        message = self.messages.get(delivery.envelope.id)
        if message is not None and message.receipt == delivery.receipt:
            message.receipt, message.lapsed = None, True

    # --- removing and counting -------------------------------------------------------------------

    def remove(self, message_id: str, at: Moment, *, forget: bool = False) -> None:
        message = self.messages.pop(message_id)
        if forget:
            self.forgotten.add(message_id)
        else:
            self.ended[message_id] = (message.envelope, at)

    def check_stats(self, stats: QueueStats, at: Moment) -> None:
        """The counts of one queue."""
        messages = self.of(stats.queue)
        found = (stats.ready, stats.delayed, stats.running)
        assert sum(found) == len(messages), f"{stats.queue}: {found}, expected {self._ids(messages)}"
        running = _range(messages, surely=lambda m: m.is_surely_leased(at), maybe=lambda m: m.receipt is not None or m.lapsed)
        delayed = _range(messages, surely=lambda m: _is_early(m, at.end), maybe=lambda m: _is_early(m, at.begin - self.grain))
        assert stats.running in running, f"{stats.queue}: {stats.running} running, not {running} of {self._ids(messages)}"
        assert stats.delayed in delayed, f"{stats.queue}: {stats.delayed} delayed, not {delayed} of {self._ids(messages)}"
        assert (stats.oldest_seconds is None) == (stats.ready == 0), f"{stats.queue}: {stats}"
        if stats.oldest_seconds is not None:
            oldest = min(m.due for m in messages if not _is_early(m, at.end))
            assert -_CLOSE <= stats.oldest_seconds <= at.end - oldest + 1.0, f"{stats.queue}: oldest {stats.oldest_seconds} s"

    def check_listed(self, queue: str, found: Sequence[QueuedMessage], at: Moment) -> None:
        """What a browser shows of one queue: each message once, in its state."""
        expected = {message.envelope.id: message for message in self.of(queue)}
        assert sorted(seen.envelope.id for seen in found) == sorted(expected), f"{queue} was listed otherwise than it is"
        for seen in found:
            message = expected[seen.envelope.id]
            assert seen.envelope == message.envelope
            assert seen.state in _states(message, at), f"{seen.envelope.id} is listed as {seen.state}"
            assert abs(seen.since.timestamp() - message.due) < 1.0, f"{seen.envelope.id} is due {seen.since}"

    def _ids(self, messages: Iterable[ExpectedMessage]) -> list[str]:
        return [message.envelope.id for message in messages]


def _should_yield(message: ExpectedMessage, other: ExpectedMessage, queues: Sequence[str]) -> bool:
    """Whether *other* is to come before *message*."""
    if message.envelope.queue != other.envelope.queue:
        return queues.index(other.envelope.queue) < queues.index(message.envelope.queue)
    return other.comes_before(message)


def _is_early(message: ExpectedMessage, moment: float) -> bool:
    """Not yet due, and never delivered."""
    return message.count == 0 and message.envelope.due is not None and message.due > moment + _CLOSE


def _states(message: ExpectedMessage, at: Moment) -> set[str]:
    """How a browser may call it."""
    if message.is_surely_leased(at):
        return {"running"}
    if message.count:
        return {"running", "ready"}
    early, late = _is_early(message, at.begin - message.grain), _is_early(message, at.end)
    return ({"delayed"} if early else set()) | ({"ready"} if not late else set())


def _range(
    messages: Sequence[ExpectedMessage],
    *,
    surely: Callable[[ExpectedMessage], bool],
    maybe: Callable[[ExpectedMessage], bool],
) -> range:
    return range(sum(map(surely, messages)), sum(map(maybe, messages)) + 1)
