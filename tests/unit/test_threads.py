"""Threads for sync tasks."""

import asyncio
import contextvars
import gc
import threading
import weakref

import pytest

from chicory.testing import eventually
from chicory.threads import ThreadPool

WORD = contextvars.ContextVar("word", default="none")


@pytest.fixture
def pool():
    pool = ThreadPool(3)
    yield pool
    pool.close()


def task_threads():
    return {thread for thread in threading.enumerate() if thread.name.startswith("chicory-task")}


async def test_a_function_runs_in_a_daemon_thread_of_its_own_name(pool):
    thread = await pool.submit(threading.current_thread)

    assert thread is not threading.current_thread()
    assert (thread.daemon, thread.name.startswith("chicory-task-")) == (True, True)


async def test_its_result_arrives_on_the_loop_that_asked(pool):
    arrived_on = []
    future = pool.submit(lambda: 21 * 2)
    future.add_done_callback(lambda _: arrived_on.append(threading.current_thread()))

    assert await future == 42
    await asyncio.sleep(0)
    assert arrived_on == [threading.current_thread()]


@pytest.mark.parametrize(
    "error", [KeyError("x"), SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError()], ids=lambda e: type(e).__name__
)
async def test_its_exception_arrives_whatever_it_is(pool, error):
    def fail():
        raise error

    future = pool.submit(fail)
    await eventually(future.done)

    with pytest.raises(type(error)):
        future.result()
    assert await pool.submit(lambda: "still there") == "still there"


async def test_stop_iteration_arrives_as_an_error_that_a_future_can_hold(pool):
    def stop():
        raise StopIteration(3)

    with pytest.raises(RuntimeError, match=r"the task raised StopIteration\(3\)"):
        await pool.submit(stop)


async def test_a_function_sees_the_context_it_was_submitted_in(pool):
    token = WORD.set("outside")

    def look_and_change():
        seen = WORD.get()
        WORD.set("inside")
        return seen

    seen = await pool.submit(look_and_change)

    assert (seen, WORD.get()) == ("outside", "outside")
    WORD.reset(token)


async def test_as_many_run_at_once_as_the_pool_is_large(pool):
    together = threading.Barrier(4)

    futures = [pool.submit(lambda: together.wait(timeout=10)) for _ in range(3)]
    await asyncio.to_thread(together.wait, timeout=10)

    assert sorted(await asyncio.gather(*futures)) != []


async def test_no_more_run_at_once_than_the_pool_is_large(pool):
    running, most, release, lock = 0, 0, threading.Event(), threading.Lock()

    def count():
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        release.wait(10)
        with lock:
            running -= 1

    futures = [pool.submit(count) for _ in range(9)]
    await eventually(lambda: running == 3)
    release.set()
    await asyncio.gather(*futures)

    assert most == 3


async def test_one_thread_is_enough_for_one_at_a_time(pool):
    threads = {await pool.submit(threading.get_ident) for _ in range(20)}

    assert len(threads) == 1


async def test_many_results_all_arrive(pool):
    answers = await asyncio.gather(*(pool.submit(lambda n=n: n * n) for n in range(500)))

    assert answers == [n * n for n in range(500)]


async def test_a_result_that_nobody_waits_for_any_more_is_dropped(pool):
    release = threading.Event()
    future = pool.submit(lambda: release.wait(10))
    future.cancel()
    release.set()

    assert await pool.submit(lambda: "next") == "next"
    assert future.cancelled()


async def test_a_stuck_thread_that_was_given_up_is_replaced():
    pool = ThreadPool(1)
    release = threading.Event()
    stuck = pool.submit(lambda: release.wait(10))
    stuck.cancel()
    pool.abandon(stuck)

    assert await asyncio.wait_for(pool.submit(lambda: "replaced"), 5) == "replaced"

    assert pool.abandoned == {stuck}
    release.set()
    await eventually(lambda: not pool.abandoned)
    assert await pool.submit(lambda: "after") == "after"
    pool.close()


async def test_the_replacement_goes_on_while_the_other_is_stuck():
    pool = ThreadPool(1)
    release = threading.Event()
    stuck = pool.submit(lambda: release.wait(10))
    stuck.cancel()
    pool.abandon(stuck)
    await asyncio.wait_for(pool.submit(lambda: None), 5)

    later = pool.submit(lambda: "later")

    try:
        await eventually(later.done, within=1)
        assert later.result() == "later"
    finally:
        release.set()
        pool.close()


async def test_after_a_replacement_the_pool_has_its_size_again():
    pool = ThreadPool(1)
    before, release = task_threads(), threading.Event()
    stuck = pool.submit(lambda: release.wait(10))
    stuck.cancel()
    pool.abandon(stuck)
    try:
        await pool.submit(lambda: None)
        assert len(task_threads() - before) == 2
    finally:
        release.set()

    await eventually(lambda: len(task_threads() - before) == 1)

    assert await pool.submit(lambda: "the one that is left") == "the one that is left"
    pool.close()


async def test_idle_threads_end_when_the_pool_is_closed():
    before, pool = task_threads(), ThreadPool(3)
    together = threading.Barrier(3)
    await asyncio.gather(*(pool.submit(lambda: together.wait(10)) for _ in range(3)))
    assert len(task_threads() - before) == 3

    pool.close()

    await eventually(lambda: task_threads() <= before)


async def test_closing_does_not_wait_for_what_runs():
    pool, release = ThreadPool(1), threading.Event()
    future = pool.submit(lambda: release.wait(10))

    pool.close()

    assert not future.done()
    release.set()
    assert await future is True


async def test_an_idle_thread_keeps_nothing_alive(pool):
    class Big:
        def __call__(self):
            return None

    big = Big()
    gone = weakref.ref(big)
    await pool.submit(big)
    del big

    await eventually(lambda: gc.collect() is not None and gone() is None)


def test_a_result_for_a_loop_that_is_closed_is_dropped():
    pool, release, ended = ThreadPool(1), threading.Event(), threading.Event()

    def late():
        release.wait(10)
        ended.set()

    async def ask():
        pool.submit(late)

    asyncio.run(ask())
    release.set()

    assert ended.wait(10)
    pool.close()
