"""Leases kept and lost, and a broker or backend that does not answer for a while."""

import asyncio

import pytest

from chicory import Chicory, TaskState, Worker, WorkerConfig
from chicory.errors import BackendConnectionError, BrokerConnectionError, BrokerFullError
from chicory.memory import MemoryBackend, MemoryBroker
from chicory.testing import eventually, receive_one
from chicory.verdict import hand_back


class Trouble:
    """Which calls fail at the moment, and how often that happened."""

    def __init__(self):
        self.failing: dict[str, Exception] = {}
        self.hits: dict[str, int] = {}
        self.calls: dict[str, int] = {}

    def check(self, name):
        self.calls[name] = self.calls.get(name, 0) + 1
        if name in self.failing:
            self.hits[name] = self.hits.get(name, 0) + 1
            raise self.failing[name]


def troubled(base, methods):
    """A subclass-like wrapper of an implementation that passes the suites, with calls that can be made to fail."""

    class Troubled:
        def __init__(self, inner, trouble):
            self.inner, self.trouble = inner, trouble

        def __getattr__(self, name):
            return getattr(self.inner, name)

        async def __aenter__(self):
            await self.inner.__aenter__()
            return self

        async def __aexit__(self, *exc):
            await self.inner.__aexit__(*exc)

        def twin(self):
            return Troubled(self.inner.twin(), self.trouble)

    for method in methods:

        def make(name):
            async def call(self, *args, **kwargs):
                self.trouble.check(name)
                return await getattr(self.inner, name)(*args, **kwargs)

            return call

        setattr(Troubled, method, make(method))
    Troubled.__name__ = f"Troubled{base.__name__}"
    return Troubled


TroubledBroker = troubled(MemoryBroker, ["receive", "settle", "extend", "publish"])
TroubledBackend = troubled(MemoryBackend, ["store", "beat"])


@pytest.fixture
def trouble():
    return Trouble()


@pytest.fixture
def apart(clock, store, trouble):
    """An app whose broker and backend are two stores that can be made to fail."""
    backend = TroubledBackend(MemoryBackend(clock), trouble)
    backend.join = lambda _broker: None
    broker = TroubledBroker(MemoryBroker(store=store), trouble)
    app = Chicory(broker=broker, backend=backend, clock=clock)
    for part in (broker, backend):
        twin = part.twin

        def joinless(twin=twin):
            made = twin()
            made.join = lambda _broker: None
            return made

        part.twin = joinless
    return app


DOWN = BrokerConnectionError("memory://", "refused")
BACKEND_DOWN = BackendConnectionError("memory://", "refused")


async def _is_started(result):
    return await result.state() is TaskState.STARTED


# --- leases ---------------------------------------------------------------------------------------


async def test_a_task_of_five_leases_runs_once(app, store, clock, work):
    runs, gate = [], asyncio.Event()

    @app.task
    async def long() -> str:
        runs.append(1)
        await gate.wait()
        return "done"

    async with MemoryBroker(store=store) as rival, work(app, lease_seconds=30):
        await rival.prepare(["default"], 30)
        result = await long.delay()
        await eventually(lambda: _is_started(result))
        for _ in range(10):
            await clock.advance(15)
            assert await rival.receive(["default"], 10, 0) == []
        gate.set()

        assert await result == "done"
    assert len(runs) == 1


async def test_an_idle_worker_still_says_that_it_lives(apart, clock, trouble, work):
    async with work(apart, lease_seconds=30):
        for _ in range(6):
            await clock.advance(10)

        await eventually(lambda: trouble.calls.get("extend", 0) >= 5)


async def test_messages_received_ahead_keep_their_lease_too(app, store, clock):
    gate = asyncio.Event()

    @app.task
    async def slow() -> None:
        await gate.wait()

    async with app, MemoryBroker(store=store) as rival:
        worker = Worker(app, WorkerConfig(concurrency=1, lease_seconds=0.3))
        await worker.start()
        worker._pump._pace._now = 5
        results = await slow.delay_many([()] * 4)
        await eventually(lambda: len(store.leased) == 4)

        for _ in range(9):
            await clock.advance(0.1)

        assert len(store.leased) == 4
        assert await rival.receive(["default"], 10, 0) == []
        gate.set()
        await asyncio.gather(*results)
        await worker.stop()


async def test_messages_received_ahead_go_back_uncounted_once_no_task_ends(app, store, clock):
    gate = asyncio.Event()
    ran = []

    @app.task
    async def slow(number: int) -> None:
        ran.append(number)
        await gate.wait()

    async with app, MemoryBroker(store=store) as rival:
        worker = Worker(app, WorkerConfig(concurrency=1))
        await worker.start()
        worker._pump._pace._now = 5
        results = await slow.delay_many([(number,) for number in range(4)])
        await eventually(lambda: len(store.leased) == 4)

        await clock.advance(2)

        others = await rival.receive(["default"], 10, 0)
        assert [(d.delivery_count, d.envelope.hop) for d in others] == [(1, 1)] * 3
        assert worker.get_stats().active_tasks == 1
        await rival.settle([hand_back(delivery) for delivery in others])
        gate.set()
        await asyncio.gather(*results)
        await worker.stop()

    assert ran == [0, 1, 2, 3]


async def test_messages_received_ahead_stay_while_tasks_end(app, store, clock):
    @app.task
    async def slow() -> None:
        await clock.sleep(0.9)

    async with app:
        worker = Worker(app, WorkerConfig(concurrency=1))
        await worker.start()
        worker._pump._pace._now = 5
        results = await slow.delay_many([()] * 5)
        await eventually(lambda: len(store.leased) == 5)

        for left in (4, 3, 2, 1):
            await clock.advance(0.91)
            await eventually(lambda left=left: len(store.leased) == left)

        await clock.advance(1)
        await asyncio.gather(*results)
        await worker.stop()


async def test_a_lease_that_cannot_be_renewed_is_given_up_before_it_ends(apart, store, clock, trouble):
    cancelled = []

    @apart.task
    async def long() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(clock.monotonic())
            raise

    async with apart:
        worker = Worker(apart, WorkerConfig(lease_seconds=30))
        await worker.start()
        began = clock.monotonic()
        await long.delay()
        await eventually(lambda: worker.get_stats().active_tasks == 1)

        trouble.failing.update(extend=DOWN, receive=DOWN, settle=DOWN)
        for _ in range(30):
            await clock.advance(1)
        await eventually(lambda: cancelled)

        assert cancelled[0] - began < 30, "before anybody else can have it"
        assert worker.get_stats().active_tasks == 0
        await worker.stop()
        await clock.advance(5)
        async with MemoryBroker(store=store) as rival:
            assert (await receive_one(rival)).delivery_count == 2


async def test_a_lost_lease_cancels_the_task_and_settles_nothing(app, store, clock, work):
    cancelled = []

    @app.task
    async def long() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(1)
            raise
        return "late"

    async with work(app):
        result = await long.delay()
        await eventually(lambda: _is_started(result))
        message = store.messages[result.task_id]
        message.lease_until = 0.0  # as if this process had been frozen for longer than its lease
        store._next_expiry = 0.0
        async with MemoryBroker(store=store) as rival:
            taken = await receive_one(rival)
            assert taken.delivery_count == 2

            await clock.advance(11)

            await eventually(lambda: cancelled)
            assert store.messages[result.task_id].receipt == taken.receipt
            assert await result.state() is TaskState.STARTED


async def test_a_result_that_comes_too_late_is_not_kept(app, store, work):
    gate = asyncio.Event()

    @app.task
    async def long() -> str:
        await gate.wait()
        return "late"

    async with work(app) as worker:
        result = await long.delay()
        await eventually(lambda: _is_started(result))
        store.messages[result.task_id].lease_until = 0.0
        store._next_expiry = 0.0
        async with MemoryBroker(store=store) as rival:
            taken = await receive_one(rival)

            gate.set()
            await eventually(lambda: worker.get_stats().active_tasks == 0)
            await eventually(lambda: worker.get_stats().tasks_processed == 1)

            assert await result.state() is TaskState.STARTED
            assert store.messages[result.task_id].receipt == taken.receipt


# --- a broker that does not answer -----------------------------------------------------------------


async def test_receiving_goes_on_after_the_broker_was_away(apart, clock, trouble, work):
    @apart.task
    async def one() -> int:
        return 1

    async with work(apart):
        trouble.failing["receive"] = DOWN
        first = await one.delay()
        await eventually(lambda: trouble.calls.get("receive", 0) >= 1)
        for _ in range(30):
            await clock.advance(1)
        assert 3 <= trouble.hits.get("receive", 0) <= 30, "it tries again, with growing pauses"

        trouble.failing.clear()
        await clock.advance(11)

        assert await first == 1


@pytest.mark.parametrize("error", [DOWN, BrokerFullError("memory://", "disk full")], ids=["away", "full"])
async def test_what_was_finished_while_the_broker_was_away_is_not_run_again(apart, clock, trouble, work, error):
    runs = []

    @apart.task
    async def once() -> str:
        runs.append(1)
        return "done"

    async with work(apart):
        trouble.failing["settle"] = error
        result = await once.delay()
        await eventually(lambda: trouble.hits.get("settle"))
        for _ in range(60):
            await clock.advance(1)

        trouble.failing.clear()
        await clock.advance(11)

        assert await result == "done"
    assert len(runs) == 1


async def test_what_was_finished_while_the_backend_was_away_is_not_run_again(apart, clock, trouble, work, store):
    runs = []

    @apart.task
    async def once() -> str:
        runs.append(1)
        return "done"

    async with work(apart):
        trouble.failing["store"] = BACKEND_DOWN
        result = await once.delay()
        await eventually(lambda: trouble.hits.get("store"))
        for _ in range(60):
            await clock.advance(1)
        assert len(store.messages) == 1, "kept under its lease"

        trouble.failing.clear()
        await clock.advance(11)

        assert await result == "done"
    assert len(runs) == 1


async def test_full_outbox_stops_the_intake(apart, clock, trouble, work, store):
    ran = []

    @apart.task
    async def quick() -> None:
        ran.append(1)

    async with work(apart, concurrency=2, prefetch=0):
        trouble.failing["settle"] = DOWN
        results = await quick.delay_many([()] * 100)
        for _ in range(20):
            await clock.advance(1)
        assert len(ran) < 20, "what cannot be settled is not started"

        trouble.failing.clear()
        for _ in range(5):
            await clock.advance(11)
        await asyncio.gather(*results)

    assert len(ran) == 100


async def test_a_publish_the_broker_refuses_raises_at_the_caller(apart, trouble):
    @apart.task
    async def one() -> int:
        return 1

    async with apart:
        trouble.failing["publish"] = DOWN

        answers = await asyncio.gather(*(one.delay() for _ in range(3)), return_exceptions=True)

        assert answers == [DOWN] * 3
        trouble.failing.clear()
        assert (await one.delay()).task_id


async def test_heartbeats_come_back(apart, clock, trouble):
    async with apart, Worker(apart, WorkerConfig(heartbeat_interval=10, heartbeat_ttl=30)):
        trouble.failing["beat"] = BACKEND_DOWN
        for _ in range(40):
            await clock.advance(1)
        assert await apart.backend.get_active_workers() == []

        trouble.failing.clear()
        for _ in range(30):
            await clock.advance(1)

        assert len(await apart.backend.get_active_workers()) == 1


# --- few round trips ---------------------------------------------------------------------------------


async def test_starting_costs_short_tasks_no_round_trip(apart, trouble, work):
    @apart.task
    async def quick() -> None: ...

    async with apart:
        results = await quick.delay_many([()] * 200)
        async with work(apart, concurrency=32):
            await asyncio.gather(*results)

    assert trouble.calls["settle"] <= 200 / 8
    assert trouble.calls["receive"] <= 200 / 8


async def test_calls_that_wait_at_the_same_time_travel_together(apart, trouble):
    @apart.task
    async def one() -> None: ...

    async with apart:
        await asyncio.gather(*(one.delay() for _ in range(100)))

    assert trouble.calls["publish"] <= 2


async def test_no_pluggy_call_happens_per_message(app, work, monkeypatch):
    import pluggy

    calls = []
    original = pluggy.PluginManager._hookexec

    def counted(self, name, *arguments):
        calls.append(name)
        return original(self, name, *arguments)

    @app.task
    async def noop(n: int) -> int:
        return n

    async with work(app):
        monkeypatch.setattr(pluggy.PluginManager, "_hookexec", counted)
        monkeypatch.setattr(app.plugins._manager, "_inner_hookexec", lambda name, *a: calls.append(name))
        collected = []
        monkeypatch.setattr(type(app.plugins), "collect", lambda _self, hook, **_a: collected.append(hook) or [])

        assert await asyncio.gather(*await noop.delay_many([(n,) for n in range(1000)])) == list(range(1000))

        assert (calls, collected) == ([], [])
