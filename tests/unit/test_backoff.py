"""Pauses between tries of something that should work again soon."""

import asyncio
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chicory.backoff import Backoff
from chicory.testing import FakeClock


class Highest(Random):
    """Always draws the upper end."""

    def uniform(self, low, high):
        return high


def test_the_pause_doubles_up_to_the_longest():
    backoff = Backoff(FakeClock(), Highest(), first=0.1, longest=1.0)

    assert [backoff.next_delay() for _ in range(6)] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.0, 1.0])


@given(tries=st.integers(0, 3000), seed=st.integers())
def test_a_pause_is_never_almost_nothing_and_never_too_long(tries, seed):
    backoff = Backoff(FakeClock(), Random(seed), first=0.1, longest=10.0)
    backoff.tries = tries

    delay = backoff.next_delay()

    full = min(10.0, 0.1 * 2.0 ** min(tries, 1000))
    assert full / 2 <= delay <= full


def test_after_a_success_the_pauses_begin_anew():
    backoff = Backoff(FakeClock(), Highest(), first=0.1)
    for _ in range(5):
        backoff.next_delay()

    backoff.reset()

    assert (backoff.tries, backoff.next_delay()) == (0, pytest.approx(0.1))


async def test_a_pause_takes_its_time():
    clock = FakeClock()
    backoff = Backoff(clock, Highest(), first=4.0)
    pause = asyncio.ensure_future(backoff.pause())

    await clock.advance(3.9)
    assert not pause.done()
    await clock.advance(0.2)

    assert pause.done()
    assert backoff.tries == 1
