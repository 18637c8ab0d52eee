"""Consumers come and go, in good order and not, and neither a message nor a name of theirs stays behind."""

import asyncio

from chicory.plugin import Settlement
from chicory.testing import an_envelope, eventually
from chicory_redis import RedisBroker

LEASE = 0.5


async def names(broker):
    """Every consumer that the server knows in the groups of the queue."""
    base = f"{broker.place.prefix}:{{default}}"
    keys = [*(f"{base}:s:{level}" for level in range(10)), f"{base}:bell"]
    found = [await broker.server.ask("XINFO", "CONSUMERS", key, broker.place.group) for key in keys]
    return {consumer[b"name"] for consumers in found for consumer in consumers}


async def one_life(place, number, settled):
    """A worker that takes some messages: of three, one ends what it took, one leaves with them, and one vanishes."""
    broker = RedisBroker(place)
    await broker.__aenter__()
    await broker.prepare(["default"], LEASE)
    deliveries = await broker.receive(["default"], 3, 0.05)
    if number % 3 == 0:
        answers = await broker.settle([Settlement(delivery=delivery) for delivery in deliveries])
        settled += [d.envelope.id for d, answer in zip(deliveries, answers, strict=True) if answer == "done"]
    if number % 3 == 2:
        await broker.server.close()  # without a word, as if it had been killed
    else:
        await broker.__aexit__(None, None, None)


async def test_two_hundred_workers_come_and_go_and_nothing_is_lost(place):
    settled = []
    async with RedisBroker(place) as keeper:
        await keeper.prepare(["default"], LEASE)
        assert await keeper.receive(["default"], 1, 0) == []
        envelopes = [an_envelope(priority=number % 10) for number in range(400)]
        await keeper.publish(envelopes)
        for start in range(0, 200, 20):
            await asyncio.gather(*(one_life(place, number, settled) for number in range(start, start + 20)))
            await keeper.cleanup("default", LEASE / 5)

        async def rest_is_settled():
            rest = await keeper.receive(["default"], 100, 0.1)
            await keeper.settle([Settlement(delivery=delivery) for delivery in rest])
            settled.extend(delivery.envelope.id for delivery in rest)
            stats = await keeper.stats("default")
            return not stats.ready + stats.running

        await eventually(rest_is_settled, within=20)

        assert sorted(settled) == sorted(envelope.id for envelope in envelopes)

        async def nobody_else_is_known():
            await keeper.cleanup("default", LEASE / 5)
            return await names(keeper) == {keeper.consumer.encode()}

        await eventually(nobody_else_is_known, within=10)
        assert await keeper.cleanup("default", 0) == 0, "who cleans up has not gone"


async def test_a_consumer_that_holds_a_message_is_not_taken_out_of_its_group(place):
    """Redis would drop what it holds with it."""
    async with RedisBroker(place) as other:
        lost = RedisBroker(place)
        await lost.__aenter__()
        await lost.prepare(["default"], LEASE)
        await lost.publish([an_envelope()])
        (delivery,) = await lost.receive(["default"], 1, 1)
        await lost.__aexit__(None, None, None)

        assert lost.consumer.encode() in await names(other)
        (again,) = await other.receive(["default"], 1, 5)
        assert again.envelope == delivery.envelope
        await other.settle([Settlement(delivery=again)])

        async def is_forgotten():
            await other.cleanup("default", 0)
            return lost.consumer.encode() not in await names(other)

        await eventually(is_forgotten, within=5)
