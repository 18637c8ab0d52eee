"""Group commit, failing operations, and waking other processes."""

import asyncio
import os
import socket
import threading
from datetime import timedelta

import pytest

from chicory.plugin import Settlement
from chicory.testing import a_record, an_envelope, eventually, receive_one
from chicory_sqlite import File, SqliteBroker
from chicory_sqlite.wakeup import RESULTS, WORK, Doorbell


async def test_what_waits_at_the_same_time_is_committed_together(broker):
    commits = []
    await broker.engine.submit(lambda _t: broker.engine._connection.set_trace_callback(commits.append), is_write=False)

    is_held, may_go_on = threading.Event(), threading.Event()

    def hold(_tables):
        is_held.set()
        return may_go_on.wait(10)

    held = broker.engine.submit(hold, is_write=False)
    await eventually(is_held.is_set)
    published = asyncio.gather(*(broker.publish([an_envelope()]) for _ in range(100)))
    await eventually(lambda: len(broker.engine._inbox) == 100)
    may_go_on.set()
    await asyncio.gather(held, published)

    await broker.engine.submit(lambda _t: broker.engine._connection.set_trace_callback(None), is_write=False)
    assert commits.count("COMMIT") == 1
    assert (await broker.stats("default")).ready == 100


async def test_an_operation_that_fails_takes_no_neighbour_with_it(broker):
    def fail(_tables):
        raise ValueError("mine alone")

    answers = await asyncio.gather(
        broker.publish([an_envelope(id="a")]),
        broker.engine.submit(fail),
        broker.publish([an_envelope(id="b")]),
        broker.engine.submit(lambda t: t.messages._connection.execute("SELECT * FROM nowhere")),
        return_exceptions=True,
    )

    assert [type(a).__name__ for a in answers] == ["NoneType", "ValueError", "NoneType", "BrokerConnectionError"]
    assert sorted(d.envelope.id for d in await broker.receive(["default"], 10, 0)) == ["a", "b"]


async def test_a_receive_that_shared_a_failed_transaction_loses_nothing(broker):
    def fail(_tables):
        raise ValueError("rolled back")

    await broker.publish([an_envelope(id="a")])

    received, _ = await asyncio.gather(broker.receive(["default"], 10, 0), broker.engine.submit(fail), return_exceptions=True)

    assert [(d.envelope.id, d.delivery_count) for d in received] == [("a", 1)]
    assert await broker.settle([Settlement(delivery=received[0])]) == ["done"]


async def test_a_claim_that_nobody_waits_for_is_given_back_uncounted(broker):
    await broker.publish([an_envelope(id="a")])
    waiting = broker.engine.receive(["default"], 10, broker.consumer, 60)
    while broker.engine._inbox or not broker.engine._is_parked:
        pass  # the loop stands still while the thread claims
    waiting.cancel()

    again = await eventually(lambda: broker.receive(["default"], 10, 0))

    assert [(d.envelope.id, d.delivery_count) for d in again] == [("a", 1)]


async def test_a_loop_that_was_closed_gives_back_what_it_had_claimed(file, broker):
    async def claim_and_go():
        other = await SqliteBroker(file).__aenter__()
        other.engine.receive(["default"], 10, other.consumer, 60)

    await asyncio.to_thread(asyncio.run, claim_and_go())
    await broker.publish([an_envelope(id="a")])

    again = await eventually(lambda: broker.receive(["default"], 10, 0))
    assert [(d.envelope.id, d.delivery_count) for d in again] == [("a", 1)]


async def test_a_message_that_is_published_while_another_waits_wakes_the_receive_at_once(broker):
    waiting = asyncio.ensure_future(broker.receive(["default", "other"], 10, 60))
    await asyncio.sleep(0)

    await broker.publish([an_envelope(queue="other")])

    assert len(await asyncio.wait_for(waiting, 5)) == 1


async def test_a_waiting_receive_learns_of_a_message_that_is_due_sooner(broker, clock):
    waiting = asyncio.ensure_future(broker.receive(["default"], 1, 3600))
    await broker.publish([an_envelope(due=clock.now() + timedelta(seconds=100))])
    await broker.publish([an_envelope(due=clock.now() + timedelta(seconds=10))])

    (receive,) = await eventually(lambda: [r for r in broker.engine._receives if r.change > 0])

    assert await eventually(lambda: receive.change - clock.monotonic() == pytest.approx(10))
    waiting.cancel()


# --- the doorbell ----------------------------------------------------------------------------------


@pytest.fixture
def bells(tmp_path):
    made = [Doorbell(tmp_path / "chicory.db") for _ in range(2)]
    for bell in made:
        bell.open()
    yield made
    for bell in made:
        bell.close()


def test_a_ring_is_heard_by_everybody_else(bells):
    here, there = bells
    assert there.listen(WORK) is not None
    here.listen(WORK)

    here.ring(WORK, ["mail", "default"])

    assert there.heard(WORK) == {"mail", "default"}
    assert here.heard(WORK) == set()
    assert there.heard(WORK) == set()


def test_work_and_results_are_rung_apart(bells):
    here, there = bells
    there.listen(WORK)
    there.listen(RESULTS)

    here.ring(RESULTS, [f"id-{n}" for n in range(5000)])

    assert len(there.heard(RESULTS)) == 5000
    assert there.heard(WORK) == set()


def test_ringing_nobody_is_no_error(bells):
    here, _ = bells

    here.ring(WORK, ["mail"])


def test_the_socket_of_a_dead_process_is_cleared_away(bells, tmp_path):
    here, _ = bells
    left = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    path = tmp_path / "chicory.db.wake" / "w-1-dead"
    descriptor = os.open(path.parent, os.O_RDONLY)
    left.bind(f"/proc/self/fd/{descriptor}/{path.name}")
    os.close(descriptor)
    left.close()
    assert path.exists()

    here.ring(WORK, ["mail"])

    assert not path.exists()


def test_a_socket_that_nobody_reads_blocks_nobody(bells):
    here, there = bells
    there.listen(WORK)

    for number in range(3000):
        here.ring(WORK, [f"queue-{number}" * 10])

    assert there.heard(WORK)


async def test_a_path_far_longer_than_an_address_may_be_wakes_all_the_same(tmp_path, clock, opened):
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    file = File(path=deep / "chicory.db", durability="normal", lock_seconds=2, clock=clock)
    broker = await opened.enter_async_context(SqliteBroker(file))
    waiting = asyncio.ensure_future(broker.receive(["default"], 1, 60))
    await eventually(lambda: list((deep / "chicory.db.wake").iterdir()))

    bell = Doorbell(file.path)
    bell.open()
    names = list((deep / "chicory.db.wake").iterdir())
    bell.ring(WORK, ["default"])
    bell.close()

    assert len(names) == 1
    assert broker.engine._bell.patience == 1.0, "it relies on being rung"
    waiting.cancel()


def test_without_a_directory_of_its_own_a_process_looks_often_instead(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "chicory.db.wake").symlink_to(tmp_path / "elsewhere")

    bell = Doorbell(tmp_path / "chicory.db")
    bell.open()
    bell.ring(WORK, ["mail"])

    assert bell.listen(WORK) is None
    assert bell.patience < 0.1
    bell.close()


async def test_results_reach_a_waiting_process_that_was_not_rung(backend, monkeypatch):
    record = a_record()
    waiting = asyncio.ensure_future(backend.wait(record.id, exists=False))
    await asyncio.sleep(0)
    monkeypatch.setattr(type(backend.engine._tables), "ended", lambda _self: [])

    await backend.store([record])

    assert await asyncio.wait_for(waiting, 5) == record


async def test_a_defect_in_the_thread_reaches_whoever_asked_and_ends_nothing(broker, monkeypatch):
    def defect(_self, _queues):
        raise ZeroDivisionError

    waiting = asyncio.ensure_future(broker.receive(["default"], 1, 60))
    await asyncio.sleep(0)
    with monkeypatch.context() as patched:
        patched.setattr(type(broker.engine._tables.messages), "look", defect)
        with pytest.raises(ZeroDivisionError):
            await broker.receive(["default"], 1, 0)
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(waiting, 5)

    await broker.publish([an_envelope(id="a")])
    assert (await receive_one(broker)).envelope.id == "a"


async def test_an_engine_that_ends_before_it_is_woken_closes_without_error(file, monkeypatch):
    async with SqliteBroker(file) as broker:
        engine, wake = broker.engine, broker.engine._wake

        def wake_late():
            wake()  # as a ring at this very moment would
            engine._thread.join()
            wake()

        monkeypatch.setattr(engine, "_wake", wake_late)

    assert engine.closed.done()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(engine._wake_write)
