"""Broker and backend in two stores: a worker that dies between storing how a task ended and settling its message."""

import pytest
from msgspec.structs import replace

from chicory import Chicory, TaskState
from chicory.memory import MemoryBackend, MemoryBroker
from chicory.message import ResultRecord
from chicory.middleware import ExecuteMiddleware
from chicory.plugin import hookimpl, revise
from chicory.record import ResultDocument, pack
from chicory.testing import a_record, eventually


class Undertaker:
    """As the plugin for dead letters does it, for one test."""

    def __init__(self):
        self.seen = []

    @hookimpl
    def chicory_execute_middleware(self):
        return [ExecuteMiddleware(stage=299, name="undertaker", layer=self.bury)]

    async def bury(self, attempt, proceed):
        outcome = await proceed(attempt)
        if not outcome.has_failed:
            return outcome
        self.seen.append((type(outcome.error).__name__, str(outcome.error), outcome.reason))
        dead = revise(attempt.delivery.envelope, queue="default.dlq")
        return replace(outcome, publish=(dead,), state=TaskState.DEAD_LETTERED)


@pytest.fixture
def backend(clock):
    return MemoryBackend(clock)


@pytest.fixture
def undertaker():
    return Undertaker()


@pytest.fixture
def apart(clock, store, backend, undertaker):
    """An app whose broker and backend do not share their store."""
    app = Chicory(broker=MemoryBroker(store=store), backend=backend, clock=clock)
    app.plugins._manager.register(undertaker, "undertaker")
    return app


def death(hop):
    body = pack(
        ResultDocument(task="t", error_type="OSError", error="no disk", traceback="Traceback", reason="retries_exhausted")
    )
    return ResultRecord(id="a", state=TaskState.DEAD_LETTERED, hop=hop, delivery_count=1, body=body, ttl=3600)


@pytest.fixture
def redelivered(apart, store, backend, clock):
    """Publish the message "a" at a hop, have a worker die of it, and have *record* in the backend; what ran afterwards."""
    runs = []

    @apart.task(name="t")
    async def t() -> str:
        runs.append(1)
        raise OSError("again")

    async def prepare(record, hop=0):
        await t.options(task_id="a").delay()
        envelope = store.messages["a"].envelope
        store.place(replace(envelope, hop=hop))
        async with MemoryBroker(store=store) as doomed:
            await doomed.prepare(["default"], 30)
            assert await doomed.receive(["default"], 1, 0)
        await backend.store([record])
        await clock.advance(31)
        return runs

    return prepare


async def test_a_dead_letter_that_was_only_recorded_is_made_up_for_without_another_run(
    apart, redelivered, undertaker, store, backend, work
):
    async with apart:
        runs = await redelivered(death(hop=1))
        async with work(apart):
            await eventually(lambda: store.messages["a"].envelope.queue == "default.dlq")
            await eventually(lambda: not store.leased)

        assert runs == []
        assert undertaker.seen == [("OSError", "no disk", "retries_exhausted")]
        assert store.messages["a"].envelope.hop == 1
        assert await backend.fetch(["a"]) == [death(hop=1)], "what was recorded stays as it was"


async def test_a_message_older_than_its_dead_letter_is_dropped(apart, redelivered, undertaker, store, work):
    async with apart:
        runs = await redelivered(death(hop=3), hop=1)
        async with work(apart):
            await eventually(lambda: "a" not in store.messages)

    assert (runs, undertaker.seen) == ([], [])


async def test_a_dead_letter_that_is_handed_to_a_worker_runs(apart, redelivered, undertaker, store, work):
    async with apart:
        runs = await redelivered(death(hop=2), hop=2)
        async with work(apart):
            await eventually(lambda: store.messages["a"].envelope.queue == "default.dlq")

    assert runs == [1]
    assert undertaker.seen == [("OSError", "again", "error")]


@pytest.mark.parametrize("state", [TaskState.SUCCESS, TaskState.FAILURE], ids=str)
async def test_what_ended_otherwise_is_settled_and_nothing_follows(apart, redelivered, undertaker, store, work, state):
    async with apart:
        runs = await redelivered(a_record(id="a", state=state, hop=0, delivery_count=1))
        async with work(apart):
            await eventually(lambda: "a" not in store.messages)

    assert (runs, undertaker.seen) == ([], [])


@pytest.mark.parametrize(
    ("state", "hop", "ends", "buries"),
    [
        (TaskState.DEAD_LETTERED, 4, False, False),
        (TaskState.DEAD_LETTERED, 5, False, False),
        (TaskState.DEAD_LETTERED, 6, True, True),
        (TaskState.DEAD_LETTERED, 7, True, False),
        (TaskState.SUCCESS, 4, False, False),
        (TaskState.SUCCESS, 5, True, False),
        (TaskState.FAILURE, 6, True, False),
        (TaskState.RETRY, 6, False, False),
        (TaskState.PENDING, 7, False, False),
    ],
)
def test_what_a_record_says_of_a_delivery_at_hop_five(state, hop, ends, buries):
    record = ResultRecord(id="a", state=state, hop=hop)

    assert (record.ends(5), record.buries(5)) == (ends, buries)
