"""What the watchdog sees, when it speaks, and whom it names."""

import asyncio
import logging
import threading
import time

import pytest

from chicory import Chicory, Worker, WorkerConfig
from chicory.testing import eventually
from chicory.watchdog import STALLED_EXIT, Sight, Turning, Watchdog

TICK = 0.25


def turning(report_after=1.0, stall_after=5.0):
    return Turning(tick=TICK, report_after=report_after, stall_after=stall_after)


def ticks(watched, count, *, elapsed=TICK, cpu=0.0, has_turned=False):
    return [watched.tick(elapsed=elapsed, cpu=cpu, has_turned=has_turned) for _ in range(count)]


# --- deciding ------------------------------------------------------------------------------------


def test_a_loop_that_turns_is_no_news():
    watched = turning()

    assert set(ticks(watched, 100, has_turned=True)) == {Sight.QUIET}
    assert watched.lag == 0


def test_a_block_is_told_once_and_its_end_once():
    watched = turning()

    assert ticks(watched, 8) == [Sight.QUIET] * 3 + [Sight.BLOCKED] + [Sight.QUIET] * 4
    assert ticks(watched, 2, has_turned=True) == [Sight.UNBLOCKED, Sight.QUIET]
    assert watched.blocked_for == 8 * TICK
    assert ticks(watched, 4)[-1] is Sight.BLOCKED, "the next block is told again"


def test_a_short_pause_is_not_told():
    watched = turning()

    assert ticks(watched, 3) + ticks(watched, 3, has_turned=True) == [Sight.QUIET] * 6


def test_a_stall_is_seen_twice_before_it_ends_anything():
    watched = turning()
    until_limit = round(5.0 / TICK)

    assert Sight.STALLED not in ticks(watched, until_limit)
    assert ticks(watched, 1) == [Sight.STALLED]


def test_what_ends_at_the_limit_is_no_stall():
    watched = turning()
    ticks(watched, round(5.0 / TICK))

    assert ticks(watched, 1, has_turned=True) == [Sight.UNBLOCKED]
    assert watched.lag == 0


def test_a_process_that_was_stopped_is_not_condemned_when_it_wakes():
    watched = turning()

    assert ticks(watched, 1, elapsed=3600.0) == [Sight.QUIET]
    assert watched.lag == 2 * TICK


def test_a_tick_that_was_late_since_code_held_the_interpreter_lock_counts_whole():
    watched = turning()

    assert ticks(watched, 1, elapsed=20.0, cpu=19.0, has_turned=True) == [Sight.BLOCKED]
    assert watched.lag == 19.0
    assert ticks(watched, 1, has_turned=True) == [Sight.UNBLOCKED]


# --- watching a real loop ------------------------------------------------------------------------


class Ward:
    """Whose loop is watched: it writes down what it is told."""

    def __init__(self):
        self.told = []
        self.ticks = 0

    def attempt_of(self, runner):
        return None

    def give_up(self):
        self.told.append("give_up")

    def stalled(self):
        self.told.append("stalled")

    def ticked(self):
        self.ticks += 1


@pytest.fixture
def watch():
    started = []

    def begin(ward, **given):
        ended = threading.Event()
        codes = []

        def end(code):
            codes.append(code)
            ended.set()

        dog = Watchdog(ward, worker_id="w", end=end, **{"report_after": 0.1, "stall_after": 60.0, **given})
        dog.start()
        started.append(dog)
        return dog, ended, codes

    yield begin
    for dog in started:
        dog.stop()


async def test_a_stall_gives_the_leases_up_before_it_ends_the_process(watch):
    ward = Ward()
    _, ended, codes = watch(ward, stall_after=0.3)

    assert ended.wait(10), "blocks the loop, as a task may"

    assert codes[0] == STALLED_EXIT == 70
    assert ward.told[:2] == ["give_up", "stalled"]


async def test_the_lag_is_that_of_a_block_and_nothing_after_it(watch):
    ward = Ward()
    dog, _, _ = watch(ward)
    seen = []
    seeing = threading.Thread(target=lambda: (time.sleep(0.4), seen.append(dog.lag)))
    seeing.start()

    time.sleep(0.6)

    seeing.join()
    assert 0.1 <= seen[0] <= 0.6
    await eventually(lambda: dog.lag == 0)


async def test_another_loop_is_watched_too(watch):
    dog, _, _ = watch(Ward())
    posted = []
    silent = dog.add(posted.append)

    await eventually(lambda: silent.lag > 0.2)
    posted[0]()
    await eventually(lambda: silent.lag < 0.2)

    assert dog.lag < 0.2


async def test_a_loop_that_is_closed_counts_as_silent(watch):
    dog, _, _ = watch(Ward())
    loop = asyncio.new_event_loop()
    loop.close()

    closed = dog.add(loop.call_soon_threadsafe)

    await eventually(lambda: closed.lag > 0.2)


# --- naming the task -----------------------------------------------------------------------------


@pytest.fixture
async def run_task(caplog):
    """Runs one task that blocks, on a worker in this process, until the watchdog has told the end of it."""
    caplog.set_level(logging.WARNING)
    app = Chicory(broker="memory://")

    async def run(function, **options):
        task = app.task(**options)(function)
        async with app, Worker(app, WorkerConfig(block_report_seconds=0.1)):
            await (await task.delay()).get(timeout=10)
            await eventually(lambda: "event=loop_unblocked" in caplog.text)

    return run


async def sleeps() -> None:
    time.sleep(0.5)


async def sleeps_in_a_task_of_its_own() -> None:
    await asyncio.create_task(sleeps())


@pytest.mark.parametrize("options", [{}, {"timeout": 30.0}], ids=["plain", "with a time-out"])
@pytest.mark.parametrize("function", [sleeps, sleeps_in_a_task_of_its_own])
async def test_the_log_names_the_task_that_blocks_and_the_line(run_task, caplog, function, options):
    await run_task(function, **options)

    (blocked,) = [text for text in caplog.messages if text.startswith("event=loop_blocked")]
    (unblocked,) = [text for text in caplog.messages if text.startswith("event=loop_unblocked")]
    for text in (blocked, unblocked):
        assert f" task={__name__}.{function.__name__} task_id=0" in text
    assert "time.sleep(0.5)" in blocked


async def test_a_block_by_no_task_is_told_without_one(run_task, caplog):
    async def quick() -> None:
        asyncio.get_running_loop().call_soon(time.sleep, 0.5)

    await run_task(quick)

    (blocked,) = [text for text in caplog.messages if text.startswith("event=loop_blocked")]
    assert " task= task_id= " in blocked or " task=None task_id=None " in blocked
