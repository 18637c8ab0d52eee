"""``JoinedSuite``: a broker and a backend as one, in one store or in two."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio
from msgspec import Struct

from chicory.backend import Backend, Joined, store_then_settle
from chicory.broker import Broker, QueueBrowser
from chicory.codec import revise
from chicory.message import Settled, Settlement, TaskState
from chicory.testing.builders import a_record, an_envelope, receive_one
from chicory.testing.stores import PassTime, StoreSuite

__all__ = ["JoinedSuite", "Pair"]


class Pair(Struct):
    """A broker, a backend, and both as one."""

    broker: Broker
    backend: Backend
    joined: Joined


@pytest.mark.asyncio
class JoinedSuite(StoreSuite):
    """What holds for ``backend.join(broker)``, or for ``store_then_settle`` where that is None.

    A subclass gives the fixture ``make_pair``: a callable that returns a new unopened broker and backend, all on one place.
    """

    @pytest.fixture
    def make_pair(self) -> Callable[[], tuple[Broker, Backend]]:
        raise TypeError(f"{type(self).__name__} must give the fixture `make_pair`")

    async def _open(self, make_pair: Callable[[], tuple[Broker, Backend]], opened: AsyncExitStack, lease: float) -> Pair:
        broker, backend = make_pair()
        joined = backend.join(broker) or store_then_settle(broker, backend)
        await opened.enter_async_context(broker)
        await opened.enter_async_context(backend)
        await broker.prepare(["default"], lease)
        return Pair(broker=broker, backend=backend, joined=joined)

    @pytest_asyncio.fixture
    async def pair(self, make_pair: Any, opened: AsyncExitStack, lease: float) -> Pair:
        return await self._open(make_pair, opened, lease)

    @pytest_asyncio.fixture
    async def rival(self, make_pair: Any, opened: AsyncExitStack, pair: Pair, lease: float) -> Pair:
        return await self._open(make_pair, opened, lease)

    async def test_publishing_is_on_record_where_that_is_declared(self, pair: Pair) -> None:
        envelope = an_envelope()

        await pair.joined.publish([envelope])

        (record,) = await pair.backend.fetch([envelope.id])
        if pair.joined.tracks_pending:
            assert record is not None
            assert (record.state, record.hop) == (TaskState.PENDING, 0)
        else:
            assert record is None
        assert (await receive_one(pair.broker)).envelope == envelope

    async def test_a_result_rides_in_the_settle(self, pair: Pair) -> None:
        await pair.joined.publish([an_envelope(id="a")])
        delivery = await receive_one(pair.broker)
        record = a_record(id="a", body=b'{"value": 3}', ttl=60.0)

        assert await pair.joined.settle([Settlement(delivery=delivery, result=record)]) == [Settled.DONE]

        (kept,) = await pair.backend.fetch(["a"])
        assert kept is not None
        assert (kept.state, kept.body) == (TaskState.SUCCESS, record.body)

    async def test_waiting_hears_of_a_settle(self, pair: Pair, rival: Pair) -> None:
        await pair.joined.publish([an_envelope(id="a")])
        waiting = asyncio.ensure_future(rival.backend.wait("a", exists=False))
        delivery = await receive_one(pair.broker)

        await pair.joined.settle([Settlement(delivery=delivery, result=a_record(id="a"))])

        record = await asyncio.wait_for(waiting, 5)
        assert record is not None
        assert record.state is TaskState.SUCCESS

    async def test_a_note_is_stored_and_leaves_the_delivery_alive(self, pair: Pair) -> None:
        await pair.joined.publish([an_envelope(id="a")])
        delivery = await receive_one(pair.broker)
        note = a_record(id="a", state=TaskState.STARTED)

        assert await pair.joined.settle([Settlement(delivery=delivery, result=note, ends=False)]) == [Settled.DONE]

        (record,) = await pair.backend.fetch(["a"])
        assert record is not None
        assert record.state is TaskState.STARTED
        assert await pair.joined.settle([Settlement(delivery=delivery)]) == [Settled.DONE]

    async def test_a_late_result_changes_nothing(self, pair: Pair, rival: Pair, lease: float, pass_time: PassTime) -> None:
        await pair.joined.publish([an_envelope(id="a")])
        late = await receive_one(pair.broker)
        await pass_time(lease * 1.1)
        current = await receive_one(rival.broker, wait=5)
        started = a_record(id="a", state=TaskState.STARTED, delivery_count=2)
        await rival.joined.settle([Settlement(delivery=current, result=started, ends=False)])

        answers = await pair.joined.settle([Settlement(delivery=late, result=a_record(id="a", body=b"late"))])

        if pair.broker.capabilities.fenced:
            assert answers == [Settled.LOST]
        (record,) = await pair.backend.fetch(["a"])
        assert record is not None
        assert (record.state, record.delivery_count) == (TaskState.STARTED, 2)

    async def test_a_repeat_gives_the_same_task(self, pair: Pair) -> None:
        envelope = an_envelope(id="order-17")
        await pair.joined.publish([envelope])
        delivery = await receive_one(pair.broker)
        await pair.joined.settle([Settlement(delivery=delivery, result=a_record(id="order-17", ttl=3600.0))])

        await pair.joined.publish([envelope])

        assert await pair.broker.receive(["default"], 10, 0) == []
        (record,) = await pair.backend.fetch(["order-17"])
        assert record is not None
        assert record.state is TaskState.SUCCESS

    async def test_putting_a_message_back_makes_it_pending_again(self, pair: Pair) -> None:
        await pair.joined.publish([an_envelope(id="a")])
        delivery = await receive_one(pair.broker)
        started = a_record(id="a", state=TaskState.STARTED)
        await pair.joined.settle([Settlement(delivery=delivery, result=started, ends=False)])

        await pair.joined.settle([Settlement(delivery=delivery, publish=(revise(delivery.envelope),))])

        if pair.joined.tracks_pending:
            (record,) = await pair.backend.fetch(["a"])
            assert record is not None
            assert (record.state, record.hop) == (TaskState.PENDING, 1)
        assert (await receive_one(pair.broker)).envelope.hop == 1

    async def test_what_follows_is_on_record_too(self, pair: Pair) -> None:
        await pair.joined.publish([an_envelope(id="a")])
        delivery = await receive_one(pair.broker)

        await pair.joined.settle([Settlement(delivery=delivery, publish=(an_envelope(id="b"),), result=a_record(id="a"))])

        (record,) = await pair.backend.fetch(["b"])
        assert (record is not None) == pair.joined.tracks_pending
        assert (await receive_one(pair.broker)).envelope.id == "b"

    async def test_a_redelivery_of_an_ended_task_is_finished(self, pair: Pair, lease: float, pass_time: PassTime) -> None:
        if pair.joined.tracks_pending:
            pytest.skip("one store: a task cannot have ended while its message is there")
        await pair.joined.publish([an_envelope(id="a"), an_envelope(id="b")])
        await pair.broker.receive(["default"], 2, 0)
        await pair.backend.store([a_record(id="a")])  # stored, and then its worker died before settling
        await pass_time(lease * 1.1)

        again = await pair.broker.receive(["default"], 2, 5)

        ended = {d.receipt for d in again if d.envelope.id == "a"}
        assert set(await pair.joined.finished(again)) == ended

    async def test_a_running_task_cannot_be_forgotten(self, pair: Pair) -> None:
        if not pair.joined.tracks_pending:
            pytest.skip("two stores: the backend does not know the message")
        await pair.joined.publish([an_envelope(id="a")])

        assert await pair.backend.delete(["a"]) == 0

        assert (await receive_one(pair.broker)).envelope.id == "a"

    async def test_replaying_a_dead_letter_makes_it_pending(self, pair: Pair) -> None:
        if not pair.joined.tracks_pending or not isinstance(pair.broker, QueueBrowser):
            pytest.skip("declares no browse, or is two stores")
        await pair.joined.publish([an_envelope(id="a")])
        delivery = await receive_one(pair.broker)
        dead = revise(delivery.envelope, queue="default.dlq")
        buried = a_record(id="a", state=TaskState.DEAD_LETTERED, hop=dead.hop)
        await pair.joined.settle([Settlement(delivery=delivery, publish=(dead,), result=buried)])

        await pair.broker.move("default.dlq", {"a": revise(dead, queue="default")})

        (record,) = await pair.backend.fetch(["a"])
        assert record is not None
        assert (record.state, record.hop) == (TaskState.PENDING, 2)
        assert (await receive_one(pair.broker)).envelope.hop == 2
