"""Time as a port, and waiting for something only so long."""

import asyncio
import time
from datetime import UTC, datetime

import pytest

from chicory.clock import SYSTEM_CLOCK, within


async def value_after(clock, seconds, value="value"):
    await clock.sleep(seconds)
    return value


async def test_what_comes_in_time_is_returned(clock):
    waiting = asyncio.ensure_future(within(clock, 10, value_after(clock, 9)))

    await clock.advance(9)

    assert await waiting == "value"


async def test_what_does_not_come_in_time_is_cancelled(clock):
    late = asyncio.ensure_future(value_after(clock, 11))
    waiting = asyncio.ensure_future(within(clock, 10, late))

    await clock.advance(10)

    with pytest.raises(TimeoutError):
        await waiting
    assert late.cancelled()


async def test_without_a_limit_it_waits_for_as_long_as_it_takes(clock):
    waiting = asyncio.ensure_future(within(clock, None, value_after(clock, 1_000_000)))

    await clock.advance(1_000_000)

    assert await waiting == "value"


async def test_what_is_there_already_needs_no_time(clock):
    ready = asyncio.get_running_loop().create_future()
    ready.set_result("value")

    assert await within(clock, 0, ready) == "value"


async def test_no_time_at_all_passes_as_soon_as_the_clock_moves(clock):
    waiting = asyncio.ensure_future(within(clock, 0, value_after(clock, 1)))

    await clock.advance(0)

    with pytest.raises(TimeoutError):
        await waiting


@pytest.mark.parametrize("error", [KeyError("x"), TimeoutError("its own")], ids=["any error", "a time-out of its own"])
async def test_an_error_comes_out_as_it_is(clock, error):
    async def fail():
        raise error

    with pytest.raises(type(error)) as raised:
        await within(clock, 10, fail())

    assert raised.value is error


async def test_who_is_cancelled_while_waiting_is_cancelled(clock):
    inner = asyncio.ensure_future(value_after(clock, 5))
    waiting = asyncio.ensure_future(within(clock, 10, inner))
    await clock.settle()

    waiting.cancel()

    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert inner.cancelled()


async def test_what_cancels_itself_is_no_timeout(clock):
    async def give_up():
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await within(clock, 10, give_up())


async def test_a_timer_that_is_not_needed_any_more_does_nothing(clock):
    assert await within(clock, 10, asyncio.sleep(0, "value")) == "value"

    await clock.advance(20)

    assert asyncio.current_task().cancelling() == 0


async def test_what_answers_while_it_is_cancelled_is_heard(clock):
    async def stubborn():
        try:
            await clock.sleep(100)
        except asyncio.CancelledError:
            return "last words"

    waiting = asyncio.ensure_future(within(clock, 10, stubborn()))
    await clock.advance(10)

    assert await waiting == "last words"


async def test_the_system_clock_is_that_of_this_machine():
    before = (datetime.now(UTC), time.monotonic())

    now, monotonic = SYSTEM_CLOCK.now(), SYSTEM_CLOCK.monotonic()

    assert before[0] <= now <= datetime.now(UTC)
    assert before[1] <= monotonic <= time.monotonic()
    assert now.tzinfo is UTC


async def test_the_system_clock_calls_back_on_the_running_loop():
    called, cancelled = asyncio.Event(), asyncio.Event()

    timer = SYSTEM_CLOCK.call_later(0, cancelled.set)
    SYSTEM_CLOCK.call_later(0, called.set)
    timer.cancel()
    timer.cancel()
    await asyncio.wait_for(called.wait(), 5)

    assert not cancelled.is_set()


async def test_sleeping_for_no_time_takes_one_turn():
    turns = []
    asyncio.get_running_loop().call_soon(turns.append, 1)

    await SYSTEM_CLOCK.sleep(0)

    assert turns == [1]
