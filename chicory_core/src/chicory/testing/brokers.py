"""``BrokerSuite``: every promise of the `Broker` contract as a test. Inherit it, and give ``make_broker``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import timedelta

import pytest
import pytest_asyncio

from chicory.broker import Broker, QueueBrowser
from chicory.clock import Clock
from chicory.codec import Arguments, encode, revise
from chicory.errors import PayloadTooLargeError
from chicory.message import Delivery, Settled, Settlement, TaskMessage
from chicory.serializer import JSON
from chicory.testing.builders import an_envelope, receive_one
from chicory.testing.clock import eventually
from chicory.testing.stores import PassTime, StoreSuite

__all__ = ["BrokerSuite"]

MakeBroker = Callable[[], Broker]

ODD_BODIES = {
    "empty": b"",
    "binary": bytes(range(256)),
    "nul": b"a\0b",
    "text": '{"ü": "🌶"}'.encode(),
    "broken": b'{"chicory": ',
    "headers": encode(
        TaskMessage(name="tasks.noop", headers={"a": "1", "b": "2"}), Arguments(content_type=JSON, data=b'{"args":[]}')
    ).body,
}


def needs(broker: Broker, capability: str) -> None:
    """Skip where the broker declares that it cannot."""
    if not getattr(broker.capabilities, capability):
        pytest.skip(f"{type(broker).__name__} declares no {capability}")


@pytest.mark.asyncio
class BrokerSuite(StoreSuite):
    """The contract of a broker.

    A subclass gives the fixture ``make_broker``: a callable that returns a new unopened broker, each with an identity of its
    own, all on one place that is empty at first. A broker with a clock of its own gives ``clock`` (the
    system's) and a short ``lease``.
    """

    @pytest.fixture
    def make_broker(self) -> MakeBroker:
        raise TypeError(f"{type(self).__name__} must give the fixture `make_broker`")

    @pytest_asyncio.fixture
    async def broker(self, make_broker: MakeBroker, opened: AsyncExitStack, lease: float) -> Broker:
        """A consumer."""
        broker = await opened.enter_async_context(make_broker())
        await broker.prepare(["default"], lease)
        return broker

    @pytest_asyncio.fixture
    async def rival(self, make_broker: MakeBroker, opened: AsyncExitStack, broker: Broker, lease: float) -> Broker:
        """Another consumer of the same queues."""
        rival = await opened.enter_async_context(make_broker())
        await rival.prepare(["default"], lease)
        return rival

    # --- publish and receive -------------------------------------------------------------------

    async def test_what_is_published_is_received(self, broker: Broker) -> None:
        envelope = an_envelope(priority=3 if broker.capabilities.priorities > 1 else 0, hop=2)
        await broker.publish([envelope])

        delivery = await receive_one(broker)

        assert delivery.envelope == envelope
        assert delivery.delivery_count == 1

    @pytest.mark.parametrize("body", ODD_BODIES.values(), ids=ODD_BODIES.keys())
    async def test_bodies_are_carried_unread(self, broker: Broker, body: bytes) -> None:
        await broker.publish([an_envelope(body=body)])

        assert (await receive_one(broker)).envelope.body == body

    async def test_messages_of_one_priority_come_in_the_order_they_were_published(self, broker: Broker) -> None:
        envelopes = [an_envelope() for _ in range(20)]
        for envelope in envelopes:
            await broker.publish([envelope])

        received = await broker.receive(["default"], 20, 0)

        assert [d.envelope.id for d in received] == [e.id for e in envelopes]

    async def test_higher_priorities_come_first(self, broker: Broker) -> None:
        if broker.capabilities.priorities < 2:
            pytest.skip("declares no priorities")
        await broker.publish([an_envelope(id="usual"), an_envelope(id="urgent", priority=9)])
        await broker.publish([an_envelope(id="urgent too", priority=9)])

        received = await broker.receive(["default"], 10, 0)

        assert [d.envelope.id for d in received] == ["urgent", "urgent too", "usual"]

    async def test_queues_are_read_in_order_of_precedence(self, broker: Broker, lease: float) -> None:
        await broker.prepare(["high", "low"], lease)
        await broker.publish([an_envelope(id="l", queue="low"), an_envelope(id="h", queue="high")])

        received = await broker.receive(["high", "low"], 10, 0)

        assert [d.envelope.id for d in received] == ["h", "l"]
        assert [d.queue for d in received] == ["high", "low"]

    async def test_other_queues_are_left_alone(self, broker: Broker) -> None:
        await broker.publish([an_envelope(queue="elsewhere")])

        assert await broker.receive(["default"], 10, 0) == []

    async def test_no_more_than_the_limit_is_received(self, broker: Broker) -> None:
        await broker.publish([an_envelope() for _ in range(5)])

        assert len(await broker.receive(["default"], 3, 0)) == 3
        assert len(await broker.receive(["default"], 3, 0)) == 2

    async def test_receiving_from_an_empty_queue_returns_nothing(self, broker: Broker) -> None:
        assert await broker.receive(["default", "never-seen"], 10, 0) == []

    async def test_publishing_wakes_a_waiting_receive(self, broker: Broker, rival: Broker) -> None:
        waiting = asyncio.ensure_future(broker.receive(["default"], 10, 60))
        await asyncio.sleep(0)

        await rival.publish([an_envelope(id="a")])

        received = await asyncio.wait_for(waiting, 5)
        assert [d.envelope.id for d in received] == ["a"]

    async def test_cancelling_a_waiting_receive_loses_nothing(self, broker: Broker) -> None:
        for _ in range(20):
            waiting = asyncio.ensure_future(broker.receive(["default"], 10, 60))
            await asyncio.sleep(0)
            envelope = an_envelope()
            publishing = asyncio.ensure_future(broker.publish([envelope]))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, publishing, return_exceptions=True)
            received = [] if waiting.cancelled() else waiting.result()
            if not received:
                received = await eventually(lambda: broker.receive(["default"], 10, 0))

            assert [(d.envelope.id, d.delivery_count) for d in received] == [(envelope.id, 1)]
            await broker.settle([Settlement(delivery=d) for d in received])

    async def test_a_batch_is_published_whole_and_received_once(self, broker: Broker, rival: Broker) -> None:
        envelopes = [an_envelope() for _ in range(1000)]
        await broker.publish(envelopes)

        received = await asyncio.gather(*(_receive_all(consumer) for consumer in (broker, rival, broker, rival)))

        ids = [d.envelope.id for part in received for d in part]
        assert sorted(ids) == sorted(e.id for e in envelopes)

    async def test_a_body_beyond_the_limit_is_refused(self, broker: Broker) -> None:
        if broker.capabilities.max_message_bytes is None:
            pytest.skip("declares no limit of its own")
        body = b"x" * (broker.capabilities.max_message_bytes + 1)

        with pytest.raises(PayloadTooLargeError):
            await broker.publish([an_envelope(id="small"), an_envelope(body=body)])

        assert await broker.receive(["default"], 10, 0) == []

    async def test_accepted_messages_survive_closing(self, broker: Broker, make_broker: MakeBroker) -> None:
        needs(broker, "persistent")
        async with make_broker() as first:
            await first.publish([an_envelope(id="a")])

        async with make_broker() as second:
            assert (await receive_one(second)).envelope.id == "a"

    # --- delays ----------------------------------------------------------------------------------

    async def test_a_delayed_message_comes_when_it_is_due(
        self, broker: Broker, clock: Clock, lease: float, pass_time: PassTime
    ) -> None:
        needs(broker, "delayed")
        envelope = an_envelope(due=clock.now() + timedelta(seconds=lease))
        await broker.publish([envelope])

        await pass_time(lease * 0.7)
        assert await broker.receive(["default"], 10, 0) == []
        await pass_time(lease * 0.4)

        delivery = await receive_one(broker)
        assert delivery.envelope == envelope

    async def test_delayed_messages_come_in_the_order_they_are_due(
        self, broker: Broker, clock: Clock, lease: float, pass_time: PassTime
    ) -> None:
        needs(broker, "delayed")
        now, step = clock.now(), timedelta(seconds=lease / 5)
        await broker.publish([an_envelope(id=f"after {n}", due=now + n * step) for n in (3, 1, 2)])

        await pass_time(lease)

        received = await broker.receive(["default"], 10, 0)
        assert [d.envelope.id for d in received] == ["after 1", "after 2", "after 3"]

    async def test_a_waiting_receive_wakes_when_a_message_becomes_due(
        self, broker: Broker, clock: Clock, lease: float, pass_time: PassTime
    ) -> None:
        needs(broker, "delayed")
        await broker.publish([an_envelope(id="late", due=clock.now() + timedelta(seconds=lease * 10))])
        waiting = asyncio.ensure_future(broker.receive(["default"], 10, lease * 20))
        await asyncio.sleep(0)
        await broker.publish([an_envelope(id="earlier", due=clock.now() + timedelta(seconds=lease / 3))])

        await pass_time(lease / 2)

        received = await asyncio.wait_for(waiting, 5)
        assert [d.envelope.id for d in received] == ["earlier"]

    # --- leases ----------------------------------------------------------------------------------

    async def test_nobody_else_receives_a_leased_message(
        self, broker: Broker, rival: Broker, lease: float, pass_time: PassTime
    ) -> None:
        await broker.publish([an_envelope()])
        await receive_one(broker)

        await pass_time(lease * 0.8)

        assert await rival.receive(["default"], 10, 0) == []

    async def test_message_returns_when_its_lease_expires(
        self, broker: Broker, rival: Broker, lease: float, pass_time: PassTime
    ) -> None:
        await broker.publish([an_envelope()])
        first = await receive_one(broker)

        await pass_time(lease * 1.1)

        again = await receive_one(rival, wait=5)
        assert again.envelope == first.envelope
        assert again.delivery_count == 2
        assert again.receipt != first.receipt

    async def test_extending_keeps_the_lease(self, broker: Broker, rival: Broker, lease: float, pass_time: PassTime) -> None:
        await broker.publish([an_envelope()])
        delivery = await receive_one(broker)

        for _ in range(3):
            await pass_time(lease * 0.6)
            assert await broker.extend([delivery.receipt]) == set()

        assert await rival.receive(["default"], 10, 0) == []

    async def test_extending_replaces_what_was_left(
        self, broker: Broker, rival: Broker, lease: float, pass_time: PassTime
    ) -> None:
        await broker.publish([an_envelope()])
        delivery = await receive_one(broker)
        for _ in range(5):
            await broker.extend([delivery.receipt])

        await pass_time(lease * 1.1)

        assert (await receive_one(rival, wait=5)).delivery_count == 2

    async def test_extending_tells_what_is_lost(self, broker: Broker, rival: Broker, lease: float, pass_time: PassTime) -> None:
        await broker.publish([an_envelope(id="kept"), an_envelope(id="lost")])
        kept, lost = sorted(await broker.receive(["default"], 2, 0), key=lambda d: d.envelope.id)
        await pass_time(lease * 0.7)
        await broker.extend([kept.receipt])
        await pass_time(lease * 0.4)
        await receive_one(rival, wait=5)

        assert await broker.extend([kept.receipt, lost.receipt]) == {lost.receipt}

    async def test_a_settled_delivery_is_lost_to_extending(self, broker: Broker) -> None:
        await broker.publish([an_envelope()])
        delivery = await receive_one(broker)
        await broker.settle([Settlement(delivery=delivery)])

        assert await broker.extend([delivery.receipt]) == {delivery.receipt}

    async def test_a_queue_keeps_its_lease_while_it_is_in_use(
        self, broker: Broker, make_broker: MakeBroker, lease: float
    ) -> None:
        async with make_broker() as other:
            assert await other.prepare(["default"], lease * 2) == {"default": lease}

    async def test_a_consumer_that_extends_counts_as_live_without_messages(
        self, broker: Broker, make_broker: MakeBroker, lease: float, pass_time: PassTime
    ) -> None:
        for _ in range(4):
            await pass_time(lease * 0.9)
            assert await broker.extend([]) == set()

        async with make_broker() as other:
            assert await other.prepare(["default"], lease * 2) == {"default": lease}

    async def test_a_new_lease_applies_once_nobody_uses_the_queue(
        self, make_broker: MakeBroker, lease: float, pass_time: PassTime
    ) -> None:
        async with make_broker() as former:
            await former.prepare(["default"], lease)

        async with make_broker() as later:
            assert await later.prepare(["default"], lease / 2) == {"default": lease / 2}
            await later.publish([an_envelope()])
            await receive_one(later)
            await pass_time(lease * 0.6)
            assert (await receive_one(later, wait=5)).delivery_count == 2

    # --- settling --------------------------------------------------------------------------------

    async def test_a_settled_message_does_not_come_again(
        self, broker: Broker, rival: Broker, lease: float, pass_time: PassTime
    ) -> None:
        await broker.publish([an_envelope()])
        delivery = await receive_one(broker)

        assert await broker.settle([Settlement(delivery=delivery)]) == [Settled.DONE]

        await pass_time(lease * 1.1)
        assert await rival.receive(["default"], 10, 0) == []

    async def test_settling_again_is_answered_gone(self, broker: Broker) -> None:
        await broker.publish([an_envelope()])
        settlement = Settlement(delivery=await receive_one(broker))
        await broker.settle([settlement])

        assert await broker.settle([settlement]) == [Settled.GONE]

    async def test_a_late_settlement_is_refused(self, broker: Broker, rival: Broker, lease: float, pass_time: PassTime) -> None:
        needs(broker, "fenced")
        await broker.publish([an_envelope()])
        late = await receive_one(broker)
        await pass_time(lease * 1.1)
        current = await receive_one(rival, wait=5)

        assert await broker.settle([Settlement(delivery=late)]) == [Settled.LOST]

        assert await rival.settle([Settlement(delivery=current)]) == [Settled.DONE]

    async def test_the_fence_holds_against_ones_own_former_delivery(
        self, broker: Broker, lease: float, pass_time: PassTime
    ) -> None:
        needs(broker, "fenced")
        await broker.publish([an_envelope()])
        former = await receive_one(broker)
        await pass_time(lease * 1.1)
        current = await receive_one(broker, wait=5)

        assert await broker.settle([Settlement(delivery=former)]) == [Settled.LOST]
        assert await broker.extend([former.receipt, current.receipt]) == {former.receipt}

    async def test_a_refused_settlement_publishes_nothing(
        self, broker: Broker, rival: Broker, lease: float, pass_time: PassTime
    ) -> None:
        needs(broker, "fenced")
        needs(broker, "atomic_publish")
        await broker.publish([an_envelope()])
        late = await receive_one(broker)
        await pass_time(lease * 1.1)
        await receive_one(rival, wait=5)

        await broker.settle([Settlement(delivery=late, publish=(an_envelope(id="next"),))])

        assert await rival.receive(["default"], 10, 0) == []

    async def test_what_follows_is_published_with_the_settlement(self, broker: Broker) -> None:
        await broker.publish([an_envelope(id="first")])
        delivery = await receive_one(broker)
        follow_ups = (an_envelope(id="second"), an_envelope(id="third", queue="other"))

        answers = await broker.settle([Settlement(delivery=delivery, publish=follow_ups)])

        assert answers == [Settled.DONE]
        assert (await receive_one(broker)).envelope == follow_ups[0]
        assert (await receive_one(broker, "other")).envelope == follow_ups[1]

    async def test_the_same_message_may_follow_itself(self, broker: Broker) -> None:
        await broker.publish([an_envelope()])
        delivery = await receive_one(broker)
        again = revise(delivery.envelope, retries=1)

        await broker.settle([Settlement(delivery=delivery, publish=(again,))])

        next_delivery = await receive_one(broker)
        assert next_delivery.envelope == again
        assert next_delivery.delivery_count == 1, "a republish begins a new count"

    async def test_a_follow_up_may_be_delayed(self, broker: Broker, clock: Clock, lease: float, pass_time: PassTime) -> None:
        needs(broker, "delayed")
        await broker.publish([an_envelope()])
        delivery = await receive_one(broker)
        later = revise(delivery.envelope, eta=clock.now() + timedelta(seconds=lease))

        await broker.settle([Settlement(delivery=delivery, publish=(later,))])

        assert await broker.receive(["default"], 10, 0) == []
        await pass_time(lease * 1.1)
        assert (await receive_one(broker)).envelope == later

    async def test_a_note_leaves_the_delivery_alive(self, broker: Broker) -> None:
        await broker.publish([an_envelope()])
        delivery = await receive_one(broker)

        assert await broker.settle([Settlement(delivery=delivery, ends=False)]) == [Settled.DONE]

        assert await broker.settle([Settlement(delivery=delivery)]) == [Settled.DONE]

    async def test_a_note_on_a_lost_delivery_says_so(
        self, broker: Broker, rival: Broker, lease: float, pass_time: PassTime
    ) -> None:
        needs(broker, "fenced")
        await broker.publish([an_envelope()])
        late = await receive_one(broker)
        await pass_time(lease * 1.1)
        await receive_one(rival, wait=5)

        assert await broker.settle([Settlement(delivery=late, ends=False)]) == [Settled.LOST]

    async def test_answers_come_in_the_order_of_the_settlements(
        self, broker: Broker, rival: Broker, lease: float, pass_time: PassTime
    ) -> None:
        needs(broker, "fenced")
        await broker.publish([an_envelope(id=str(number)) for number in range(4)])
        deliveries = sorted(await broker.receive(["default"], 4, 0), key=lambda d: d.envelope.id)
        await broker.settle([Settlement(delivery=deliveries[1])])
        await pass_time(lease * 0.9)
        await broker.extend([deliveries[0].receipt, deliveries[3].receipt])
        await pass_time(lease * 0.2)
        await receive_one(rival, wait=5)

        answers = await broker.settle([Settlement(delivery=d) for d in deliveries])

        assert answers == [Settled.DONE, Settled.GONE, Settled.LOST, Settled.DONE]

    @pytest.mark.parametrize("ends", [True, False], ids=["ended", "noted"])
    async def test_a_late_settlement_is_refused_beside_the_live_one_of_its_message(
        self, broker: Broker, lease: float, pass_time: PassTime, ends: bool
    ) -> None:
        needs(broker, "fenced")
        await broker.publish([an_envelope()])
        late = await receive_one(broker)
        await pass_time(lease * 1.1)
        live = await receive_one(broker, wait=5)
        follow_up = (an_envelope(id="next"),) if ends and broker.capabilities.atomic_publish else ()

        answers = await broker.settle(
            [Settlement(delivery=live, ends=ends), Settlement(delivery=late, ends=ends, publish=follow_up)]
        )

        assert answers[0] is Settled.DONE
        assert answers[1] in {Settled.LOST, Settled.GONE}
        assert await broker.receive(["default"], 10, 0) == []

    async def test_a_twin_speaks_for_its_consumer(self, broker: Broker) -> None:
        await broker.publish([an_envelope()])
        delivery = await receive_one(broker)

        async with broker.twin() as twin:
            assert await twin.extend([delivery.receipt]) == set()
            assert await twin.settle([Settlement(delivery=delivery)]) == [Settled.DONE]

    async def test_closing_a_twin_does_not_take_its_consumer_away(
        self, broker: Broker, make_broker: MakeBroker, lease: float
    ) -> None:
        async with broker.twin() as twin:
            await twin.extend([])

        async with make_broker() as other:
            assert await other.prepare(["default"], lease * 2) == {"default": lease}, "the queue is in use"

    # --- repeats ---------------------------------------------------------------------------------

    async def test_a_repeated_publish_is_dropped(self, broker: Broker) -> None:
        needs(broker, "dedup_window")
        envelope = an_envelope()
        await broker.publish([envelope, envelope])
        await broker.publish([envelope])

        assert len(await broker.receive(["default"], 10, 0)) == 1

    async def test_a_repeat_is_dropped_after_the_message_was_settled(self, broker: Broker) -> None:
        needs(broker, "dedup_window")
        envelope = an_envelope()
        await broker.publish([envelope])
        await broker.settle([Settlement(delivery=await receive_one(broker))])

        await broker.publish([envelope])

        assert await broker.receive(["default"], 10, 0) == []

    async def test_an_id_may_be_used_again_after_the_window(self, broker: Broker, pass_time: PassTime) -> None:
        needs(broker, "dedup_window")
        envelope = an_envelope()
        await broker.publish([envelope])
        await broker.settle([Settlement(delivery=await receive_one(broker))])
        await pass_time(broker.capabilities.dedup_window + 2)

        await broker.publish([envelope])

        assert (await receive_one(broker)).envelope == envelope

    async def test_a_later_hop_of_one_id_is_no_repeat(self, broker: Broker) -> None:
        envelope = an_envelope()
        await broker.publish([envelope])
        await broker.settle([Settlement(delivery=await receive_one(broker))])
        replayed = revise(envelope)

        await broker.publish([replayed])

        assert (await receive_one(broker)).envelope == replayed

    # --- counting and clearing -------------------------------------------------------------------

    async def test_stats_count_by_what_messages_wait_for(
        self, broker: Broker, clock: Clock, lease: float, pass_time: PassTime
    ) -> None:
        delayed = broker.capabilities.delayed
        await broker.publish([an_envelope() for _ in range(3)])
        if delayed:
            await broker.publish([an_envelope(due=clock.now() + timedelta(hours=1))])
        await receive_one(broker)
        await pass_time(lease / 2)

        stats = await broker.stats("default")

        assert (stats.ready, stats.delayed, stats.running) == (2, int(delayed), 1)
        assert stats.oldest_seconds == pytest.approx(lease / 2, rel=0.5)

    async def test_stats_of_an_empty_queue_are_zero(self, broker: Broker) -> None:
        await broker.publish([an_envelope()])
        await broker.settle([Settlement(delivery=await receive_one(broker))])

        for queue in ("default", "never-seen"):
            stats = await broker.stats(queue)
            assert (stats.ready, stats.delayed, stats.running, stats.oldest_seconds) == (0, 0, 0, None)

    async def test_purging_leaves_what_runs(self, broker: Broker, clock: Clock) -> None:
        await broker.publish([an_envelope() for _ in range(5)])
        held = await receive_one(broker)
        if broker.capabilities.delayed:
            await broker.publish([an_envelope(due=clock.now() + timedelta(hours=1))])

        gone = await broker.purge("default")

        assert gone == 4 + int(broker.capabilities.delayed)
        assert await broker.receive(["default"], 10, 0) == []
        assert await broker.settle([Settlement(delivery=held)]) == [Settled.DONE]

    async def test_cleanup_forgets_stale_consumers_and_loses_nothing(
        self, broker: Broker, rival: Broker, lease: float, pass_time: PassTime
    ) -> None:
        await broker.publish([an_envelope()])
        delivery = await receive_one(broker)
        for _ in range(4):  # the rival lives, the other does not
            await pass_time(lease * 0.5)
            await rival.extend([])

        assert await rival.cleanup("default", lease * 1.5) == 1
        assert await rival.cleanup("default", lease * 1.5) == 0

        again = await receive_one(rival, wait=5)
        assert again.envelope == delivery.envelope

    async def test_a_broker_that_answers_is_healthy(self, broker: Broker) -> None:
        await broker.health()

    # --- browsing --------------------------------------------------------------------------------

    @pytest.fixture
    def browser(self, broker: Broker) -> QueueBrowser:
        needs(broker, "browse")
        assert isinstance(broker, QueueBrowser)
        return broker

    async def test_listing_pages_through_a_queue_without_consuming(self, broker: Broker, browser: QueueBrowser) -> None:
        envelopes = [an_envelope() for _ in range(7)]
        await broker.publish(envelopes)
        await receive_one(broker)

        seen, cursor = [], None
        while True:
            page = await browser.list_messages("default", limit=3, after=cursor)
            seen += page.messages
            if (cursor := page.cursor) is None:
                break

        assert sorted(m.envelope.id for m in seen) == sorted(e.id for e in envelopes)
        assert sorted(m.state for m in seen) == ["ready"] * 6 + ["running"]
        assert len(await broker.receive(["default"], 10, 0)) == 6

    async def test_messages_can_be_looked_up_by_id(self, broker: Broker, browser: QueueBrowser) -> None:
        envelope = an_envelope(id="a", queue="mail")
        await broker.publish([envelope, an_envelope(id="b", queue="other")])

        found = await browser.get_messages("mail", ["b", "a", "c"])

        assert [m.envelope for m in found] == [envelope]

    async def test_all_queues_are_known(self, broker: Broker, browser: QueueBrowser) -> None:
        await broker.publish([an_envelope(queue="mail")])

        assert {"default", "mail"} <= set(await browser.queues())

    async def test_deleting_takes_waiting_messages_only(self, broker: Broker, browser: QueueBrowser) -> None:
        await broker.publish([an_envelope(id="held")])
        held = await receive_one(broker)
        await broker.publish([an_envelope(id="waiting")])

        assert await browser.delete_messages("default", ["held", "waiting", "unknown"]) == 1

        assert await broker.receive(["default"], 10, 0) == []
        assert await broker.settle([Settlement(delivery=held)]) == [Settled.DONE]

    async def test_moving_replaces_a_message_in_one_step(self, broker: Broker, browser: QueueBrowser) -> None:
        dead = an_envelope(id="a", queue="default.dlq", hop=3)
        await broker.publish([dead])
        alive = revise(dead, queue="default", retries=0)

        assert await browser.move("default.dlq", {"a": alive, "unknown": an_envelope()}) == {"a"}

        assert (await receive_one(broker)).envelope == alive
        assert (await broker.stats("default.dlq")).ready == 0

    async def test_of_two_that_move_one_message_one_moves_it(
        self, broker: Broker, rival: Broker, browser: QueueBrowser
    ) -> None:
        assert isinstance(rival, QueueBrowser)
        dead = [an_envelope(queue="default.dlq") for _ in range(50)]
        await broker.publish(dead)
        replacements = {e.id: revise(e, queue="default") for e in dead}

        moved = await asyncio.gather(browser.move("default.dlq", replacements), rival.move("default.dlq", replacements))

        assert sorted([*moved[0], *moved[1]]) == sorted(e.id for e in dead)
        assert len(await broker.receive(["default"], 100, 0)) == 50

    async def test_a_message_that_has_come_back_meanwhile_is_not_moved_by_what_was_seen_before(
        self, broker: Broker, browser: QueueBrowser
    ) -> None:
        seen = an_envelope(id="a", queue="default.dlq", hop=1)
        back = an_envelope(id="a", queue="default.dlq", hop=3)
        await broker.publish([back])

        assert await browser.move("default.dlq", {"a": revise(seen, queue="default")}) == set()

        (there,) = await browser.get_messages("default.dlq", ["a"])
        assert there.envelope == back
        assert (await broker.stats("default")).ready == 0


async def _receive_all(broker: Broker) -> list[Delivery]:
    found: list[Delivery] = []
    while batch := await broker.receive(["default"], 64, 0):
        found += batch
    return found
