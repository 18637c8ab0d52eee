"""What arrives while a round trip is under way travels together in the next one."""

import asyncio
from contextvars import ContextVar

import pytest

from chicory.batch import Batcher


class Trips:
    """A flush that doubles what it gets, remembers each trip, and waits at the gate where there is one."""

    def __init__(self):
        self.made = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, items):
        self.made.append(items)
        await self.gate.wait()
        if "bad" in items:
            raise OSError("the server is gone")
        return [item * 2 for item in items]


@pytest.fixture
def trips():
    return Trips()


@pytest.fixture
def batcher(trips):
    return Batcher(trips, limit=3)


async def turns(number=5):
    for _ in range(number):
        await asyncio.sleep(0)


async def test_a_single_request_waits_for_nobody(batcher, trips):
    answer = await batcher.add(1)

    assert answer == 2
    assert trips.made == [[1]]


async def test_requests_of_one_turn_travel_together(batcher, trips):
    answers = await asyncio.gather(batcher.add(1), batcher.add(2), batcher.add(3))

    assert answers == [2, 4, 6]
    assert trips.made == [[1, 2, 3]]


async def test_tasks_that_wait_at_the_same_time_travel_together(batcher, trips):
    async def ask(number):
        return await batcher.add(number)

    answers = await asyncio.gather(ask(1), ask(2), ask(3))

    assert answers == [2, 4, 6]
    assert trips.made == [[1, 2, 3]]


async def test_what_arrives_during_a_trip_goes_with_the_next(batcher, trips):
    trips.gate.clear()
    first = batcher.add(1)
    await turns()
    later = [batcher.add(2), batcher.add(3)]
    await turns()
    assert trips.made == [[1]]

    trips.gate.set()
    answers = await asyncio.gather(first, *later)

    assert answers == [2, 4, 6]
    assert trips.made == [[1], [2, 3]]


async def test_no_trip_is_larger_than_the_limit(batcher, trips):
    answers = await asyncio.gather(*(batcher.add(number) for number in range(7)))

    assert answers == [0, 2, 4, 6, 8, 10, 12]
    assert trips.made == [[0, 1, 2], [3, 4, 5], [6]]


async def test_only_one_trip_is_under_way(batcher, trips):
    trips.gate.clear()
    waiting = [batcher.add(number) for number in range(5)]
    await turns()

    assert trips.made == [[0, 1, 2]]

    trips.gate.set()
    await asyncio.gather(*waiting)


async def test_an_error_goes_to_everyone_of_that_batch_and_to_nobody_else(batcher):
    waiting = [batcher.add(item) for item in ("a", "bad", "b", "c", "d")]

    answers = await asyncio.gather(*waiting, return_exceptions=True)

    assert [type(answer) for answer in answers] == [OSError, OSError, OSError, str, str]
    assert answers[0] is answers[1] is answers[2]
    assert answers[3:] == ["cc", "dd"]


async def test_after_an_error_requests_are_answered_as_before(batcher):
    with pytest.raises(OSError, match="the server is gone"):
        await batcher.add("bad")

    assert await batcher.add("a") == "aa"


async def test_an_error_that_nobody_hears_of_is_not_complained_about(batcher, caplog):
    answer = batcher.add("bad")
    del answer

    await batcher.drain()

    assert caplog.records == []


async def test_a_caller_that_is_cancelled_does_not_call_its_item_back(batcher, trips):
    async def ask(number):
        return await batcher.add(number)

    trips.gate.clear()
    callers = [asyncio.ensure_future(ask(number)) for number in (1, 2)]
    await turns()
    callers[0].cancel()
    trips.gate.set()
    answers = await asyncio.gather(*callers, return_exceptions=True)

    assert isinstance(answers[0], asyncio.CancelledError)
    assert answers[1] == 4
    assert trips.made == [[1, 2]]


async def test_an_item_whose_caller_left_before_the_trip_still_travels(batcher, trips):
    answer = batcher.add(1)
    answer.cancel()

    await batcher.drain()

    assert trips.made == [[1]]


async def test_a_nudge_flushes_nothing_when_nothing_waits(batcher, trips):
    batcher.nudge()

    await batcher.drain()

    assert trips.made == [[]]


async def test_a_nudge_rides_along_with_what_waits(batcher, trips):
    answer = batcher.add(1)
    batcher.nudge()
    batcher.nudge()

    assert await answer == 2
    await batcher.drain()
    assert trips.made == [[1]]


async def test_a_nudge_during_a_trip_brings_one_more(batcher, trips):
    trips.gate.clear()
    answer = batcher.add(1)
    await turns()
    batcher.nudge()
    trips.gate.set()

    await answer
    await batcher.drain()

    assert trips.made == [[1], []]


async def test_what_is_put_travels_with_what_is_added(batcher, trips):
    batcher.put(1)
    answer = batcher.add(2)
    batcher.put(3)

    assert await answer == 4
    assert trips.made == [[1, 2, 3]]


async def test_a_drain_returns_when_everything_is_answered(batcher, trips):
    trips.gate.clear()
    waiting = [batcher.add(number) for number in range(5)]
    draining = asyncio.ensure_future(batcher.drain())
    await turns()
    assert not draining.done()

    trips.gate.set()
    await draining

    assert all(answer.done() for answer in waiting)
    assert not batcher.is_busy


async def test_a_drain_waits_for_what_is_added_meanwhile(batcher, trips):
    trips.gate.clear()
    batcher.put(1)
    draining = asyncio.ensure_future(batcher.drain())
    await turns()
    batcher.put(2)
    trips.gate.set()

    await draining

    assert trips.made == [[1], [2]]


async def test_a_drain_of_nothing_returns_at_once(batcher):
    await batcher.drain()

    assert not batcher.is_busy


async def test_errors_do_not_come_out_of_a_drain(batcher):
    answer = batcher.add("bad")

    await batcher.drain()

    assert isinstance(answer.exception(), OSError)


async def test_it_is_busy_from_the_first_request_to_the_last_answer(batcher):
    assert not batcher.is_busy
    answer = batcher.add(1)
    assert batcher.is_busy

    await answer
    await batcher.drain()

    assert not batcher.is_busy


async def test_a_trip_belongs_to_none_of_those_who_wait_for_it():
    word = ContextVar("word", default="nobody's")
    seen = []

    async def look(items):
        seen.append(word.get())
        return items

    token = word.set("the first caller's")
    await Batcher(look, limit=3).add(1)
    word.reset(token)

    assert seen == ["nobody's"]


async def test_an_abort_cancels_the_trip_and_everyone_who_waits(batcher, trips):
    trips.gate.clear()
    waiting = [batcher.add(number) for number in range(5)]
    await turns()

    batcher.abort()
    await turns()

    assert all(answer.cancelled() for answer in waiting)
    assert not batcher.is_busy


async def test_an_abort_before_the_first_trip_cancels_who_waits(batcher, trips):
    waiting = [batcher.add(1), batcher.add(2)]

    batcher.abort()
    await turns()

    assert all(answer.cancelled() for answer in waiting)
    assert not batcher.is_busy
    assert trips.made == []


async def test_an_abort_of_nothing_is_nothing(batcher):
    batcher.abort()

    assert not batcher.is_busy


async def test_after_an_abort_requests_are_answered_as_before(batcher, trips):
    trips.gate.clear()
    batcher.add(1)
    await turns()
    batcher.abort()
    await turns()
    trips.gate.set()

    assert await batcher.add(2) == 4
