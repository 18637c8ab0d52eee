"""The clock that only moves when told, and waiting for what happens in real time."""

import asyncio
import threading
from datetime import UTC, datetime, timedelta

import pytest

from chicory.loop_thread import LoopThread
from chicory.testing import FakeClock, eventually

START = datetime(2026, 1, 1, tzinfo=UTC)


async def test_it_stands_still_until_it_is_told_to_move(clock):
    before = (clock.now(), clock.monotonic())
    await clock.settle()
    assert (clock.now(), clock.monotonic()) == before

    await clock.advance(90)

    assert clock.now() - before[0] == timedelta(seconds=90)
    assert clock.monotonic() - before[1] == 90


def test_it_may_start_at_any_moment():
    moment = datetime(1999, 12, 31, tzinfo=UTC)

    assert (FakeClock().now(), FakeClock(moment).now()) == (START, moment)


async def test_timers_fire_in_order_each_at_its_moment(clock):
    fired = []
    for seconds in (5, 1, 3):
        clock.call_later(seconds, lambda s=seconds: fired.append((s, clock.monotonic() - start)))
    start = clock.monotonic()

    await clock.advance(4)
    assert fired == [(1, 1), (3, 3)]
    await clock.advance(1)

    assert fired == [(1, 1), (3, 3), (5, 5)]


async def test_timers_of_one_moment_fire_in_the_order_they_were_asked_for(clock):
    fired = []
    for name in "abc":
        clock.call_later(1, lambda n=name: fired.append(n))

    await clock.advance(1)

    assert fired == ["a", "b", "c"]


async def test_a_timer_that_was_cancelled_never_fires(clock):
    fired = []
    timer = clock.call_later(1, lambda: fired.append(1))
    timer.cancel()
    timer.cancel()

    await clock.advance(2)

    assert fired == []


@pytest.mark.parametrize("seconds", [0, -1], ids=["no time", "the past"])
async def test_a_timer_for_no_time_fires_in_the_next_turn(clock, seconds):
    fired = []

    clock.call_later(seconds, lambda: fired.append("kept"))
    clock.call_later(seconds, lambda: fired.append("cancelled")).cancel()
    assert fired == []
    await asyncio.sleep(0)

    assert fired == ["kept"]


async def test_what_a_timer_sets_going_runs_before_the_next(clock):
    seen = []

    async def tick():
        while True:
            await clock.sleep(1)
            seen.append(clock.monotonic() - start)

    start = clock.monotonic()
    ticking = asyncio.ensure_future(tick())
    await clock.advance(3.5)
    ticking.cancel()

    assert seen == [1, 2, 3]


async def test_a_sleep_that_is_cancelled_leaves_nothing(clock):
    sleeping = asyncio.ensure_future(clock.sleep(1))
    await clock.settle()
    sleeping.cancel()

    await clock.advance(2)

    assert sleeping.cancelled()


@pytest.mark.parametrize("seconds", [0, -1], ids=["no time", "the past"])
async def test_sleeping_for_no_time_takes_one_turn(clock, seconds):
    turns = []
    asyncio.get_running_loop().call_soon(turns.append, 1)

    await clock.sleep(seconds)

    assert turns == [1]


async def test_a_timer_of_another_loop_fires_there(clock):
    fired_on = []
    there = LoopThread("chicory-test")
    there.start()
    try:

        async def ask():
            clock.call_later(1, lambda: fired_on.append(threading.current_thread().name))

        await asyncio.wrap_future(there.submit(ask()))
        await clock.advance(1)
        await eventually(lambda: fired_on)
    finally:
        there.stop()

    assert fired_on == ["chicory-test"]


async def test_a_timer_of_a_loop_that_is_closed_is_forgotten(clock):
    there = LoopThread("chicory-test")
    there.start()

    async def ask():
        clock.call_later(1, lambda: None)

    await asyncio.wrap_future(there.submit(ask()))
    there.stop()

    await clock.advance(2)

    assert clock.now() == START + timedelta(seconds=2)


async def test_eventually_gives_the_first_true_value():
    values = iter([0, "", None, "here"])

    assert await eventually(lambda: next(values)) == "here"


async def test_eventually_waits_for_coroutines_too():
    values = iter([False, True])

    async def condition():
        return next(values)

    assert await eventually(condition) is True


async def test_eventually_gives_up_and_says_what_it_saw():
    with pytest.raises(AssertionError, match="not true within 0 s; the last value was 'almost'"):
        await eventually(lambda: _Falsy(), within=0)


class _Falsy:
    def __bool__(self):
        return False

    def __repr__(self):
        return "'almost'"


async def test_an_error_in_the_condition_comes_out():
    with pytest.raises(KeyError):
        await eventually(lambda: {}["x"])
