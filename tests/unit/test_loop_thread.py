"""An event loop in a thread of its own."""

import asyncio
import threading

import pytest

from chicory.loop_thread import LoopThread


@pytest.fixture
def thread():
    thread = LoopThread("chicory-test")
    thread.start()
    yield thread
    thread.stop()


async def where():
    return threading.current_thread(), asyncio.get_running_loop()


def test_coroutines_run_on_its_own_daemon_thread(thread):
    there, _ = thread.submit(where()).result(10)

    assert there is not threading.current_thread()
    assert (there.name, there.daemon) == ("chicory-test", True)


def test_all_coroutines_share_one_loop(thread):
    loops = {thread.submit(where()).result(10)[1] for _ in range(3)}

    assert len(loops) == 1


def test_an_exception_comes_back(thread):
    async def fail():
        raise KeyError("x")

    with pytest.raises(KeyError):
        thread.submit(fail()).result(10)


def test_it_knows_whether_the_caller_runs_on_it(thread):
    async def ask():
        return thread.is_current

    assert (thread.is_current, thread.submit(ask()).result(10)) == (False, True)


def test_stopping_cancels_what_runs_and_closes_the_loop(thread):
    started, cancelled = threading.Event(), threading.Event()

    async def hang():
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    _, loop = thread.submit(where()).result(10)
    thread.submit(hang())
    assert started.wait(10)

    thread.stop()

    assert cancelled.is_set()
    assert loop.is_closed()


def test_stopping_is_repeatable_and_may_come_first():
    thread = LoopThread("chicory-test")
    thread.stop()
    thread.start()

    thread.stop()
    thread.stop()

    assert not any(one.name == "chicory-test" for one in threading.enumerate())


def test_it_may_be_started_again(thread):
    thread.stop()

    thread.start()

    assert thread.submit(asyncio.sleep(0, "again")).result(10) == "again"


async def test_its_loop_is_not_that_of_the_caller(thread):
    _, loop = await asyncio.wrap_future(thread.submit(where()))

    assert loop is not asyncio.get_running_loop()


def test_what_is_cancelled_at_the_end_closes_undisturbed_what_it_opened(thread):
    """A task of a group is cancelled by its group: were it cancelled as one of the loop's too, its closing would be cut short."""
    ready, told = threading.Semaphore(0), []

    async def part(number):
        ready.release()
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            told.append(number)

    async def whole():
        async with asyncio.TaskGroup() as group:
            for number in range(20):
                group.create_task(part(number))

    thread.submit(whole())
    assert all(ready.acquire(timeout=5) for _ in range(20))

    thread.stop()

    assert sorted(told) == list(range(20))
