"""``BrokerModel``: random histories against a broker and against plain dictionaries, which must agree after every step."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from chicory.broker import QueueBrowser, QueuedMessage
from chicory.codec import revise
from chicory.message import Delivery, Settled, Settlement
from chicory.testing.histories import CONSUMERS, IN_HAND, LONG, QUEUES, Histories, InHand, delays, several, some

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["BrokerModel"]


class BrokerModel(Histories):
    """Three consumers, three queues, and a clock; every rule is something that a worker, a client or an operator does.

    A subclass gives `new_place`, and a test calls `check`::

        class KafkaModel(BrokerModel):
            def new_place(self):
                prefix = new_id()
                return lambda: KafkaBroker(self.server.url, prefix=prefix, clock=self.clock)

        def test_any_history_keeps_the_contract():
            KafkaModel.check()

    A broker with a clock of its own says ``clock = SYSTEM_CLOCK`` and a short ``lease``, and is slower by as much.
    """

    # --- receiving and holding -------------------------------------------------------------------

    @rule(who=some, queues=st.permutations(QUEUES), count=st.integers(1, 3), limit=st.sampled_from([1, 2, 3, 10]))
    def receive(self, who: int, queues: Sequence[str], count: int, limit: int) -> None:
        self._receive(who % CONSUMERS, queues[:count], limit)

    @rule(who=some)
    def receive_everything(self, who: int) -> None:
        self._receive(who % CONSUMERS, QUEUES, 20)

    @rule(who=some, leases=st.sampled_from([1.1, 1.1, 4.37]))
    def take_over(self, who: int, leases: float) -> None:
        """Nobody extends anything until all leases have ended; then one consumer gets it all."""
        self._pass(leases)
        self._receive(who % CONSUMERS, QUEUES, 20)

    def _receive(self, consumer: int, queues: Sequence[str], limit: int) -> list[Delivery]:
        at = self._at()
        is_late = [m for q in queues for m in self.expected.of(q) if m.is_surely_ready(at, promptly=True)]
        wait = self.patience if is_late and not self.promptly else 0.0
        deliveries, at = self._ask(self._brokers[consumer].receive(queues, limit, wait))
        assert deliveries or not is_late, f"nothing came from {queues} within {wait} s, and something was ready"
        self.expected.received(deliveries, queues, limit, at)
        self._hand = (self._hand + [InHand(consumer, delivery) for delivery in deliveries])[-IN_HAND:]
        return deliveries

    @precondition(lambda self: self._hand)
    @rule(which=several, by_twin=st.booleans())
    def extend(self, which: list[int], by_twin: bool) -> None:
        """Whatever it has, live or not, of the consumer of the first one chosen."""
        consumer = self._chosen(which)[0].consumer
        mine = [held.delivery for held in self._chosen(which) if held.consumer == consumer]
        self._extend(consumer, mine, by_twin=by_twin)

    def _extend(self, consumer: int, deliveries: list[Delivery], *, by_twin: bool) -> None:
        async def extending() -> set[str]:
            receipts = [delivery.receipt for delivery in deliveries]
            if not by_twin:
                return await self._brokers[consumer].extend(receipts)
            async with self._brokers[consumer].twin() as twin:
                return await twin.extend(receipts)

        lost, at = self._ask(extending())
        self.expected.extended(deliveries, lost, at)

    def _held_by(self, consumer: int) -> list[Delivery]:
        return [held.delivery for held in self._hand if held.consumer == consumer and self._is_current(held)]

    def _is_current(self, held: InHand) -> bool:
        message = self.expected.messages.get(held.delivery.envelope.id)
        return message is not None and message.receipt == held.delivery.receipt

    def _chosen(self, which: list[int]) -> list[InHand]:
        indices = dict.fromkeys(choice % len(self._hand) for choice in which)
        return [self._hand[index] for index in indices]

    # --- settling --------------------------------------------------------------------------------

    @precondition(lambda self: any(self._is_current(held) for held in self._hand))
    @rule(who=some, how=some, delay=delays)
    def settle_everything(self, who: int, how: int, delay: float) -> None:
        """What one consumer holds, in one call, each in another way."""
        mine = [held for held in self._hand if self._is_current(held)]
        consumer = mine[who % len(mine)].consumer
        mine = [held for held in mine if held.consumer == consumer]
        self._settle(consumer, [self._settlement(held, how + n, delay) for n, held in enumerate(mine)])

    @precondition(lambda self: self._hand)
    @rule(which=several, how=st.lists(some, min_size=5, max_size=5), delay=delays, by_twin=st.booleans())
    def settle(self, which: list[int], how: list[int], delay: float, by_twin: bool) -> None:
        """Several deliveries of one consumer in one call: live, late, settled before; in all the ways there are."""
        first = self._chosen(which)[0]
        mine = [held for held in self._chosen(which) if held.consumer == first.consumer]
        self._settle(first.consumer, [self._settlement(h, n, delay) for h, n in zip(mine, how, strict=False)], by_twin=by_twin)

    @precondition(lambda self: any(self._is_current(held) for held in self._hand))
    @rule(which=some, how=some, delay=delays)
    def settle_in_time(self, which: int, how: int, delay: float) -> None:
        """What happens most: one that is held."""
        current = [held for held in self._hand if self._is_current(held)]
        held = current[which % len(current)]
        self._settle(held.consumer, [self._settlement(held, how, delay)])

    @precondition(lambda self: self._stale())
    @rule(which=some, how=some, delay=delays)
    def wake_up_late(self, which: int, how: int, delay: float) -> None:
        """A consumer was frozen while others took over, and goes on as if nothing had happened."""
        held = self._stale()[which % len(self._stale())]
        self._settle(held.consumer, [self._settlement(held, how, delay)])

    def _stale(self) -> list[InHand]:
        return [h for h in self._hand if h.delivery.envelope.id in self.expected.messages and not self._is_current(h)]

    def _settlement(self, held: InHand, how: int, delay: float) -> Settlement:
        own = held.delivery.envelope
        is_certain = self._is_current(held) or (self.capabilities.fenced and self.capabilities.atomic_publish)
        again = {
            "done": (),
            "retry": (revise(own, eta=self._due(delay)),),
            "hand_back": (revise(own),),
            "move": (revise(own, queue="default.dlq", eta=None, priority=0),),
            "follow_up": (self._new("other", delay),),
            "retry_and_follow_up": (revise(own, eta=self._due(delay)), self._new("default")),
        }
        choice = how % (len(again) + 1)
        if choice == len(again):
            return Settlement(delivery=held.delivery, ends=False)
        follow = list(again.values())[choice]
        return Settlement(delivery=held.delivery, publish=follow if is_certain else ())

    def _settle(self, consumer: int, settlements: list[Settlement], *, by_twin: bool = False) -> None:
        async def settling() -> list[Settled]:
            if not by_twin:
                return await self._brokers[consumer].settle(settlements)
            async with self._brokers[consumer].twin() as twin:
                return await twin.settle(settlements)

        is_stale = {s.delivery.receipt for s in settlements if not self._is_current(InHand(consumer, s.delivery))}
        ids = Counter(settlement.delivery.envelope.id for settlement in settlements)
        answers, at = self._ask(settling())
        assert len(answers) == len(settlements), f"{len(settlements)} settlements, {len(answers)} answers"
        for settlement, answer in zip(settlements, answers, strict=True):
            delivery = settlement.delivery
            allowed = self.expected.answers(delivery, at)
            if delivery.receipt in is_stale and ids[delivery.envelope.id] > 1:
                allowed = {Settled.LOST, Settled.GONE}  # of one that this very call may have ended
            assert answer in allowed, f"{delivery.receipt}: answered {answer!r}, expected {sorted(allowed)}"
            self.expected.settled(settlement, answer, at)

    # --- cleaning and purging ----------------------------------------

    @rule(queue=st.sampled_from(QUEUES))
    def clean_up(self, queue: str) -> None:
        """While all consumers are alive: each extends what it holds, which may be nothing."""
        for consumer in range(CONSUMERS):
            self._extend(consumer, self._held_by(consumer), by_twin=False)
        gone, _ = self._ask(self._brokers[0].cleanup(queue, 1.5 * self.lease))
        unsure = sum(name == queue for _, name in self._unsure)
        assert gone <= unsure, f"{gone} consumers of {queue} were forgotten, of whom {unsure} were silent"

    @rule(who=some, queue=st.sampled_from(QUEUES))
    def clean_up_after_one_that_is_silent(self, who: int, queue: str) -> None:
        silent = who % CONSUMERS
        others = [consumer for consumer in range(CONSUMERS) if consumer != silent]
        for _ in range(4):
            self._pass(0.5)
            for consumer in others:
                self._extend(consumer, self._held_by(consumer), by_twin=False)
        gone, _ = self._ask(self._brokers[others[0]].cleanup(queue, 1.5 * self.lease))
        unsure = sum(name == queue for _, name in self._unsure)
        surely = (silent, queue) not in self._unsure
        assert surely <= gone <= surely + unsure, f"{gone} consumers of {queue} were forgotten, one was silent"
        self._unsure.add((silent, queue))

    @rule(queue=st.sampled_from(QUEUES))
    def purge(self, queue: str) -> None:
        at, messages = self._at(), self.expected.of(queue)
        if any(message.is_overdue(at) for message in messages):
            return  # a lease that has ended: whether its consumer still has it is seen by the next receive
        gone, _ = self._ask(self._brokers[0].purge(queue))
        free = [message.envelope.id for message in messages if message.receipt is None]
        assert gone == len(free), f"{gone} of {queue} were purged, not the {len(free)} that nobody held: {free}"
        for message_id in free:
            self.expected.remove(message_id, at, forget=True)

    # --- browsing --------------------------------------------------------------------------------

    def _browser(self) -> QueueBrowser:
        browser = self._brokers[2]
        assert isinstance(browser, QueueBrowser), "it declares `browse`, and is no QueueBrowser"
        return browser

    @precondition(lambda self: self.capabilities.browse)
    @rule(queue=st.sampled_from(QUEUES), limit=st.integers(1, 4), which=several)
    def browse(self, queue: str, limit: int, which: list[int]) -> None:
        async def paging() -> list[QueuedMessage]:
            found: list[QueuedMessage] = []
            cursor = None
            while True:
                page = await self._browser().list_messages(queue, limit=limit, after=cursor)
                assert len(page.messages) <= limit
                found += page.messages
                if (cursor := page.cursor) is None:
                    return found

        found, at = self._ask(paging())
        self.expected.check_listed(queue, found, at)
        ids = self._some_ids(which)
        found, _ = self._ask(self._browser().get_messages(queue, [*ids, "unknown"]))
        expected = [m.envelope for m in self.expected.of(queue) if m.envelope.id in ids]
        assert [m.envelope for m in found] == sorted(expected, key=lambda envelope: envelope.id)

    @precondition(lambda self: self.capabilities.browse)
    @rule(queue=st.sampled_from(QUEUES), which=several)
    def delete_messages(self, queue: str, which: list[int]) -> None:
        at, ids = self._at(), self._some_ids(which)
        gone, _ = self._ask(self._browser().delete_messages(queue, [*ids, "unknown"]))
        free = [m.envelope.id for m in self.expected.of(queue) if m.envelope.id in ids and m.receipt is None]
        assert gone == len(free), f"{gone} of {queue} were deleted, not {free}"
        for message_id in free:
            self.expected.remove(message_id, at, forget=True)

    @precondition(lambda self: self.capabilities.browse)
    @rule(queue=st.sampled_from(QUEUES), where=st.sampled_from(QUEUES), which=several)
    def move(self, queue: str, where: str, which: list[int]) -> None:
        known = self.expected.messages
        ids = [i for i in self._some_ids(which) if known[i].receipt is None]
        replacements = {i: revise(known[i].envelope, queue=where, eta=None) for i in ids}
        moved, at = self._ask(self._browser().move(queue, {**replacements, "unknown": self._new(where)}))
        there = {i for i in ids if known[i].envelope.queue == queue}
        assert moved == there, f"{moved} were moved from {queue}, not {there}"
        for message_id in sorted(there):
            self.expected.publish(replacements[message_id], at)

    def _some_ids(self, which: list[int]) -> list[str]:
        """Of messages that are there, without those whose lease has ended and that nobody took yet."""
        at = self._at()
        ids = [i for i, message in self.expected.messages.items() if not message.is_overdue(at)]
        return list(dict.fromkeys(ids[choice % len(ids)] for choice in which)) if ids else []

    # --- what holds after every step ---------------------------------------------------------------

    @invariant()
    def counts_agree(self) -> None:
        self._age += 1
        for queue in QUEUES:
            stats, at = self._ask(self._brokers[self._age % CONSUMERS].stats(queue))
            assert stats.queue == queue
            self.expected.check_stats(stats, at)

    @precondition(lambda self: self._age >= LONG)
    @rule()
    def drain(self) -> None:
        """Everything that was accepted comes once its time has come, and nothing is left then."""
        self._pass(21.0)
        while self.expected.messages:
            before = len(self.expected.messages)
            deliveries = self._receive(0, QUEUES, 10)
            self._settle(0, [Settlement(delivery=delivery) for delivery in deliveries])
            assert len(self.expected.messages) < before, f"{list(self.expected.messages)} do not come any more"
        assert self._receive(1, QUEUES, 10) == []
        self._age = 0
