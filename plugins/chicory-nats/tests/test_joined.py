"""What a server without a fence lets happen, and what comes of it: two consumers that both hold one message."""

import asyncio

import pytest

from chicory.errors import BrokerConnectionError
from chicory.memory import MemoryBackend
from chicory.plugin import ResultRecord, Settled, Settlement, TaskState, revise, store_then_settle
from chicory.testing import a_record, an_envelope, eventually, receive_one
from chicory_nats import NatsBackend, NatsBroker
from chicory_nats.joined import JoinedNats

LEASE = 30.0


class Party:
    """A worker's broker and backend."""

    def __init__(self, place):
        self.broker, self.backend = NatsBroker(place), NatsBackend(place)
        self.joined = self.backend.join(self.broker)
        assert isinstance(self.joined, JoinedNats)

    async def __aenter__(self):
        await self.broker.__aenter__()
        await self.backend.__aenter__()
        await self.broker.prepare(["default"], LEASE)
        return self

    async def __aexit__(self, *error):
        await self.backend.__aexit__(*error)
        await self.broker.__aexit__(*error)


@pytest.fixture
async def parties(place):
    async with Party(place) as first, Party(place) as second:
        yield first, second


async def received(broker):
    try:
        return await broker.receive(["default"], 2, 5)
    except BrokerConnectionError:  # a worker asks again too
        return []


async def both_hold(first, second, envelope=None):
    """One message, delivered to both: as after a kill of the server, the first does not know that it has lost it."""
    await first.joined.publish([envelope or an_envelope(id="a")])
    former = await receive_one(first.broker)
    await first.broker.server.ask([(former.receipt, b"", b"-NAK")])
    return former, await receive_one(second.broker, wait=5)


def claim(delivery, holder):
    record = ResultRecord(
        id=delivery.envelope.id,
        state=TaskState.STARTED,
        hop=delivery.envelope.hop,
        delivery_count=delivery.delivery_count,
        holder=holder,
    )
    return Settlement(delivery=delivery, result=record)


async def test_a_late_result_does_not_end_the_message_that_another_works_on(parties):
    first, second = parties
    former, current = await both_hold(first, second)
    note = a_record(id="a", state=TaskState.STARTED, delivery_count=2)
    await second.joined.settle([Settlement(delivery=current, result=note, ends=False)])

    answers = await first.joined.settle([Settlement(delivery=former, result=a_record(id="a", body=b"late"))])

    assert answers == [Settled.LOST]
    assert (await first.broker.stats("default")).running == 1
    assert (await first.backend.fetch(["a"]))[0] == note


async def test_a_late_result_in_another_store_does_not_end_the_message_either(place):
    """The backend is no NATS, and says alone that somebody else works on it."""
    async with NatsBroker(place) as first, NatsBroker(place) as second, MemoryBackend() as backend:
        for broker in (first, second):
            await broker.prepare(["default"], LEASE)
        late, here = store_then_settle(first, backend), store_then_settle(second, backend)
        await late.publish([an_envelope(id="a"), an_envelope(id="b")])
        former, other = await first.receive(["default"], 2, 5)
        await first.server.ask([(former.receipt, b"", b"-NAK")])
        current = await receive_one(second, wait=5)
        note = a_record(id="a", state=TaskState.STARTED, delivery_count=2)
        assert await here.settle([Settlement(delivery=current, result=note, ends=False)]) == [Settled.DONE]

        ends = [Settlement(delivery=d, result=a_record(id=d.envelope.id, delivery_count=1, body=b"1")) for d in (former, other)]
        assert await late.settle(ends) == [Settled.LOST, Settled.DONE]

        assert (await first.stats("default")).running == 1
        end = a_record(id="a", delivery_count=2, body=b"2")
        assert await here.settle([Settlement(delivery=current, result=end)]) == [Settled.DONE]
        assert (await backend.fetch(["a"]))[0] == end


async def test_a_late_result_after_the_end_ends_nothing_but_the_message(parties):
    first, second = parties
    former, current = await both_hold(first, second)
    end = a_record(id="a", delivery_count=2, body=b"2")
    await second.joined.settle([Settlement(delivery=current, result=end)])

    await first.joined.settle([Settlement(delivery=former, result=a_record(id="a", body=b"late"))])

    assert (await first.backend.fetch(["a"]))[0] == end
    assert (await first.broker.stats("default")).running == 0


async def test_what_runs_at_most_once_is_claimed_by_one(parties):
    first, second = parties
    former, current = await both_hold(first, second)

    assert await first.joined.settle([claim(former, "w1")]) == [Settled.DONE]
    assert await second.joined.settle([claim(current, "w2")]) == [Settled.LOST]

    (record,) = await first.backend.fetch(["a"])
    assert record.holder == "w1"
    assert {worker: [r.id for r in records] for worker, records in (await second.backend.held()).items()} == {"w1": ["a"]}


async def test_of_two_claims_at_once_one_is_granted(parties):
    first, second = parties
    for number in range(20):
        former, current = await both_hold(first, second, an_envelope(id=f"n{number}"))

        answers = await asyncio.gather(first.joined.settle([claim(former, "w1")]), second.joined.settle([claim(current, "w2")]))

        assert sorted(answers) == [[Settled.DONE], [Settled.LOST]]


async def test_a_claim_whose_answer_was_lost_is_repeated(parties):
    first, _ = parties
    await first.joined.publish([an_envelope(id="a")])
    delivery = await receive_one(first.broker)
    started = claim(delivery, "w1")
    await first.backend.claim({delivery.receipt: started.result})

    assert await first.joined.settle([started]) == [Settled.DONE]


@pytest.mark.parametrize("comes_again", [True, False])
async def test_a_claim_that_could_not_be_settled_in_time_is_given_up(parties, comes_again):
    first, _ = parties
    await first.joined.publish([an_envelope(id="a")])
    delivery = await receive_one(first.broker)
    started = claim(delivery, "w1")
    await first.joined._claim([started])
    if not comes_again:
        await first.broker.server.ask([(delivery.receipt, b"", b"+ACK")])
    first.broker._leases.end(delivery.receipt)

    await first.joined.finished([])

    (record,) = await first.backend.fetch(["a"])
    if comes_again:
        assert (record.state, record.holder) == (TaskState.PENDING, None)
    else:
        assert (record.state, record.holder) == (TaskState.STARTED, "w1 (lost)"), "nobody lives who holds it: clean-up ends it"


async def test_a_message_whose_follow_up_is_out_is_not_run_again(parties):
    first, second = parties
    former, current = await both_hold(first, second)
    await first.joined.settle([Settlement(delivery=former, publish=(revise(former.envelope),))])

    assert await second.joined.finished([current]) == {current.receipt}

    again = await receive_one(second.broker, wait=5)
    assert again.envelope.hop == 1
    assert await second.joined.finished([again]) == frozenset()


async def test_after_a_lost_connection_first_deliveries_are_doubted_too(make_server):
    server = make_server()
    async with Party(server.place()) as party:
        await party.joined.publish([an_envelope(id="a"), an_envelope(id="b")])
        await party.backend.store([a_record(id="a")])
        server.kill()
        server.start()

        deliveries = await eventually(lambda: received(party.broker), within=20)

        assert {d.delivery_count for d in deliveries} == {1}
        ended = {d.receipt for d in deliveries if d.envelope.id == "a"}
        assert await party.joined.finished(deliveries) == ended
