"""Blocking calls from code without event loop."""

import asyncio
import gc
import os
import threading

import pytest

from chicory import portal
from chicory.errors import SyncCallError


def call(coroutine):
    return portal.run_sync(coroutine, blocking="get_sync()", instead="await result.get()")


async def thread_name():
    return threading.current_thread().name


def test_the_result_comes_back_from_the_portal_thread():
    assert call(thread_name()) == "chicory-portal"


def test_an_exception_comes_back():
    async def fail():
        raise KeyError("x")

    with pytest.raises(KeyError):
        call(fail())


def test_all_calls_share_one_thread():
    async def ident():
        return threading.get_ident()

    from_another_thread = []
    caller = threading.Thread(target=lambda: from_another_thread.append(call(ident())))
    caller.start()
    caller.join()

    assert {call(ident()), call(ident())} == set(from_another_thread)


def test_the_portal_does_not_keep_the_process_from_ending():
    call(asyncio.sleep(0))

    (thread,) = [thread for thread in threading.enumerate() if thread.name == "chicory-portal"]

    assert thread.daemon


async def test_on_a_thread_with_a_running_loop_it_says_what_to_write():
    with pytest.raises(SyncCallError) as refused:
        call(thread_name())

    assert str(refused.value) == ("get_sync() would block the event loop that runs on this thread: use `await result.get()`")


async def test_a_refused_call_leaves_no_coroutine_behind():
    coroutine = thread_name()

    with pytest.raises(SyncCallError):
        call(coroutine)

    with pytest.raises(RuntimeError, match="cannot reuse"):
        await coroutine
    gc.collect()  # a coroutine that was never awaited would warn here, and warnings are errors


async def test_a_thread_beside_a_running_loop_may_block():
    assert await asyncio.to_thread(lambda: call(thread_name())) == "chicory-portal"


def test_the_portal_may_not_wait_for_itself():
    async def nested():
        return call(thread_name())

    with pytest.raises(SyncCallError):
        call(nested())


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # Python 3.12: it is multi-threaded, use of fork()
def test_a_forked_child_has_a_portal_of_its_own():
    call(asyncio.sleep(0))

    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if call(thread_name()) == "chicory-portal" else 2
        finally:
            os._exit(status)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert call(thread_name()) == "chicory-portal"


def test_a_fork_while_the_lock_is_held_does_not_block_the_child(monkeypatch):
    held = threading.Lock()
    held.acquire()
    monkeypatch.setattr(portal, "_lock", held)

    portal._after_fork()

    assert call(thread_name()) == "chicory-portal"
