"""The test kit: an app that is configured for production runs in memory, until idle, and is given back."""

import asyncio
import subprocess
import sys
import threading
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest

from chicory import Chicory, DeliveryMode, RetryPolicy, TaskContext, TaskState
from chicory.clock import SYSTEM_CLOCK
from chicory.errors import (
    BackendNotConfiguredError,
    NotIdleError,
    ResultNotFoundError,
    SyncCallError,
    TaskFailedError,
    TaskNotFoundError,
)
from chicory.hookspecs import hookimpl
from chicory.memory import MemoryBackend, MemoryBroker
from chicory.testing import in_memory

PATIENT = RetryPolicy(max_retries=3, retry_delay=60, jitter=False)
AT_ONCE = RetryPolicy(max_retries=3, retry_delay=0, jitter=False)


class Production(MemoryBroker):
    """A server that no test may reach."""

    address = "production://server"

    async def __aenter__(self):
        raise AssertionError("the test has reached production")

    def twin(self):
        return self


@pytest.fixture
def app():
    app = Chicory(broker=Production(), backend=MemoryBackend())

    @app.task(name="mail.send", retry_policy=PATIENT)
    async def send(order: int) -> str:
        return f"sent {order}"

    @app.task(name="order.place")
    async def place(order: int, *, day: datetime | None = None) -> int:
        await send.delay(order)
        return order * 2

    @app.task(name="order.place_sync")
    def place_sync(order: int) -> int:
        send.delay_sync(order)
        return order * 3

    return app


@pytest.fixture
async def run(app):
    async with in_memory(app) as run:
        yield run


# --- running -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "value"), [("order.place", 34), ("order.place_sync", 51)], ids=["async", "sync"])
async def test_what_was_sent_runs_with_all_that_follows(app, run, name, value):
    result = await app.tasks[name].delay(17)

    await run.until_idle()

    assert await result.get() == value
    assert [(message.name, message.args) for message in run.sent()] == [(name, (17,)), ("mail.send", (17,))]
    mail = await run.result(run.sent("mail.send")[0].id)
    assert (mail.state, mail.value) == (TaskState.SUCCESS, "sent 17")


async def test_a_message_is_seen_as_it_was_sent(app, run):
    place, day = app.tasks["order.place"], datetime(2026, 5, 1, tzinfo=UTC)
    call = place.options(queue="high", countdown=10, priority=7, headers={"tenant": "a"}, expires=60)

    await call.delay(17, day=day)

    (message,) = run.sent(place)
    assert (message.args, message.kwargs, message.queue, message.priority) == ((17,), {"day": day}, "high", 7)
    assert (message.headers, message.retries) == ({"tenant": "a"}, 0)
    assert message.eta - run.clock.now() == timedelta(seconds=10)
    assert message.expires - run.clock.now() == timedelta(seconds=60)


async def test_a_name_that_nobody_has_is_misspelt(app, run):
    await app.send_task("billing.elsewhere", queue="billing")

    assert len(run.sent("billing.elsewhere")) == 1
    assert run.sent("mail.send") == []
    with pytest.raises(TaskNotFoundError, match=r"did you mean 'mail\.send'"):
        run.sent("mail.sned")
    with pytest.raises(TaskNotFoundError, match=r"did you mean 'mail\.send'"):
        run.fail("mail.sned", OSError())


async def test_a_message_for_another_service_stays_where_it_is(app, run):
    await app.send_task("billing.elsewhere", queue="billing")

    await run.jump(24 * 3600)

    assert (await app.broker.stats("billing")).ready == 1
    assert run.failures == []


async def test_queues_that_only_a_call_names_are_read(app, run):
    result = await app.tasks["mail.send"].options(queue="seldom").delay(1)

    await run.until_idle()

    assert await result.state() is TaskState.SUCCESS


async def test_retries_without_delay_belong_to_now(app, run):
    @app.task(retry_policy=AT_ONCE)
    async def shaky(ctx: TaskContext) -> int:
        if ctx.retries < 3:
            raise ConnectionError
        return ctx.retries

    result = await shaky.delay()
    await run.until_idle()

    assert await result.info() == await run.result(result.task_id)
    assert (await result.info()).value == 3


async def test_a_task_that_may_run_once_only_is_waited_for(app, run):
    started, ended = [], []

    @app.task(delivery_mode=DeliveryMode.AT_MOST_ONCE)
    async def once() -> None:
        started.append(1)
        await asyncio.sleep(0.02)
        ended.append(1)

    await once.delay()
    await run.until_idle()

    assert (started, ended) == ([1], [1])


async def test_nothing_to_do_is_idle(run):
    await run.until_idle()
    await run.jump(1e6)

    assert run.sent() == []


# --- failing -----------------------------------------------------------------------------------------


async def test_a_task_fails_on_demand_and_its_policy_decides(app, run):
    send = app.tasks["mail.send"]
    run.fail("mail.send", ConnectionError("smtp is down"), times=2)

    result = await send.delay(17)
    await run.until_idle()
    first = await result.state()
    await run.jump(60)
    second = await result.state()
    await run.jump(120)

    assert (first, second) == (TaskState.RETRY, TaskState.RETRY)
    info = await result.info()
    assert (info.state, info.retries, info.value) == (TaskState.SUCCESS, 2, "sent 17")
    assert run.failures == []


async def test_failures_are_taken_in_the_order_they_were_asked_for(app, run):
    @app.task
    def plain() -> int:
        return 1

    run.fail(plain, OSError("first"))
    run.fail(plain, KeyError)
    handles = [await plain.delay() for _ in range(3)]
    await run.until_idle()

    assert [type(failure.error) for failure in run.failures] == [OSError, KeyError]
    assert sorted([await handle.state() for handle in handles]) == ["FAILURE", "FAILURE", "SUCCESS"]


async def test_a_task_that_always_fails_ends_after_its_last_retry(app, run):
    run.fail("mail.send", ConnectionError("smtp is down"), times=None)
    result = await app.tasks["mail.send"].delay(17)

    await run.jump(3600)

    (failure,) = run.failures
    assert (failure.task, failure.task_id, str(failure.error)) == ("mail.send", result.task_id, "smtp is down")
    with pytest.raises(TaskFailedError, match="smtp is down"):
        await result.get()


async def test_failures_are_raised_if_asked_for(app, run):
    @app.task
    async def broken(number: int) -> None:
        raise LookupError(f"number {number}")

    await broken.delay_many([(1,), (2,)])

    with pytest.raises(TaskFailedError, match="number 1") as caught:
        await run.until_idle(raise_failures=True)
    assert isinstance(caught.value.__cause__, LookupError)
    assert caught.value.__cause__.__traceback__ is not None
    assert any("number 2" in note for note in caught.value.__notes__)
    await run.until_idle(raise_failures=True)  # each is raised once
    await broken.delay(3)
    with pytest.raises(TaskFailedError, match="number 3"):
        await run.jump(1, raise_failures=True)


# --- never idle --------------------------------------------------------------------------------------


async def test_a_task_that_sends_itself_for_ever_is_named(app, run):
    @app.task(name="poll.again")
    async def again() -> None:
        await again.delay()

    await again.delay()

    with pytest.raises(NotIdleError) as caught:
        await run.until_idle(limit=20)
    assert str(caught.value).startswith("not idle after 20 runs: poll.again (ran 2")
    assert "give that call a countdown" in str(caught.value)


async def test_a_task_that_comes_back_later_is_only_too_much_for_a_jump(app, run):
    moments = []

    @app.task
    async def minutely() -> None:
        moments.append(run.clock.now())
        await minutely.options(countdown=60).delay()

    await minutely.delay()
    await run.until_idle()
    assert len(moments) == 1

    await run.jump(180)
    assert [later - moments[0] for later in moments] == [timedelta(minutes=minute) for minute in range(4)]
    with pytest.raises(NotIdleError, match="10 runs"):
        await run.jump(3600, limit=10)


@pytest.mark.parametrize("is_stubborn", [False, True], ids=["can be cancelled", "cannot be cancelled"])
async def test_a_task_that_hangs_is_named_and_left(app, run, is_stubborn):
    is_over = asyncio.Event()

    @app.task(name="hangs")
    async def hangs() -> None:
        while not is_over.is_set():
            try:
                await is_over.wait()
            except asyncio.CancelledError:
                if not is_stubborn:
                    raise

    await hangs.delay()

    with pytest.raises(NotIdleError, match=r"0\.05 s of real time: hangs \(1 running\)"):
        await run.until_idle(timeout=0.05)
    is_over.set()


# --- time --------------------------------------------------------------------------------------------


async def test_everything_runs_at_its_moment_in_order(app, run):
    seen = []

    @app.task
    async def at(seconds: float) -> None:
        seen.append((seconds, (run.clock.now() - start).total_seconds()))
        if seconds == 10:
            await at.options(countdown=5).delay(15)

    start = run.clock.now()
    for seconds in (3600, 10, 0.001, 86400):
        await at.options(countdown=seconds).delay(seconds)
    await at.options(eta=start + timedelta(days=2)).delay(172800)
    await run.jump(86400)

    assert [asked for asked, _ in seen] == [0.001, 10, 15, 3600, 86400]
    assert [came for _, came in seen] == pytest.approx([asked for asked, _ in seen], abs=1e-5)
    assert run.clock.now() - start == timedelta(days=1)


async def test_the_clock_starts_now_or_when_it_is_told(app):
    async with in_memory(app) as run:
        assert abs(run.clock.now() - datetime.now(UTC)) < timedelta(minutes=1)
    async with in_memory(app, now=datetime(2030, 1, 1, tzinfo=UTC)) as run:
        assert run.clock.now() == app.clock.now() == datetime(2030, 1, 1, tzinfo=UTC)


# --- waiting for results -----------------------------------------------------------------------------


async def test_waiting_for_a_result_runs_what_leads_to_it(app, run):
    result = await app.tasks["order.place"].delay(4)

    assert await result == 8
    assert await (await app.tasks["mail.send"].delay(5)).get(timeout=5) == "sent 5"


async def test_a_task_may_wait_for_another(app, run):
    @app.task
    async def both() -> str:
        return await (await app.tasks["mail.send"].delay(6)).get(timeout=5)

    @app.task
    def both_sync() -> str:
        return app.tasks["mail.send"].delay_sync(7).get_sync(timeout=5)

    handles = [await both.delay(), await both_sync.delay()]
    await run.until_idle()

    assert [await handle.get() for handle in handles] == ["sent 6", "sent 7"]


async def test_waiting_for_what_runs_later_says_that_time_stands_still(app, run):
    result = await app.tasks["mail.send"].options(countdown=60).delay(1)

    with pytest.raises(NotIdleError, match=r"mail\.send \(PENDING\); let time pass") as caught:
        await result.get(timeout=5)
    assert "jump(seconds)" in str(caught.value)
    await run.jump(60)
    assert await result == "sent 1"


async def test_an_unknown_result_is_said_so(run):
    with pytest.raises(ResultNotFoundError):
        await run.result("nobody")


async def test_a_worker_may_stand_beside_the_test(app, run):
    async with run.working():
        results = await asyncio.gather(*(app.tasks["order.place"].delay(n) for n in range(3)))
        await run.until_idle()

        assert [await result for result in results] == [0, 2, 4]
    assert len(run.sent("mail.send")) == 3


async def test_an_app_that_keeps_no_results_keeps_none_here():
    app = Chicory(broker=Production(), backend=None)
    seen = []

    @app.task
    async def note(number: int) -> None:
        seen.append(number)

    async with in_memory(app) as run:
        result = await note.delay(1)
        await run.until_idle()
        with pytest.raises(BackendNotConfiguredError):
            await result.get()

    assert seen == [1]


# --- sync code ---------------------------------------------------------------------------------------


def test_code_without_event_loop_has_the_same(app):
    with in_memory(app) as run:
        result = app.tasks["order.place_sync"].delay_sync(2)
        run.until_idle_sync()
        assert result.get_sync(timeout=5) == 6

        later = app.tasks["mail.send"].options(countdown=60).delay_sync(1)
        assert run.result_sync(later.task_id).state is TaskState.PENDING
        run.jump_sync(60)
        assert later.get_sync() == "sent 1"
        assert app.tasks["mail.send"].delay_sync(9).get_sync() == "sent 9"
        run.fail("order.place_sync", OSError("full"))
        app.tasks["order.place_sync"].delay_sync(2)
        with pytest.raises(TaskFailedError, match="full"):
            run.until_idle_sync(raise_failures=True)


async def test_the_sync_ways_refuse_to_block_a_loop(app, run):
    for call in (run.until_idle_sync, lambda: run.jump_sync(1), lambda: run.result_sync("x")):
        with pytest.raises(SyncCallError, match="would block the event loop"):
            call()
    with pytest.raises(SyncCallError, match=r"use `async with in_memory\(\.\.\.\)`"), in_memory(app):
        pass


# --- giving back -------------------------------------------------------------------------------------


async def test_the_app_is_as_it_was_before(app):
    before = dict(vars(app))

    async with in_memory(app) as run:
        await app.tasks["order.place"].delay(1)
        assert app.broker.address == "memory://"
        assert app.clock is run.clock
        await run.until_idle()

    assert vars(app) == before
    assert app.clock is SYSTEM_CLOCK
    assert app.broker.address == "production://server"
    assert all(info.name != "testkit" for info in app.plugins)
    with pytest.raises(AssertionError, match="reached production"):
        await app.tasks["order.place"].delay(1)


async def test_an_error_in_the_test_gives_back_too(app):
    before = dict(vars(app))

    with pytest.raises(ZeroDivisionError):
        async with in_memory(app):
            await app.tasks["order.place"].delay(1)
            raise ZeroDivisionError

    assert vars(app) == before


async def test_one_run_knows_nothing_of_another(app):
    async with in_memory(app) as outer:
        await app.tasks["mail.send"].delay(1)
        async with in_memory(app) as inner:
            await inner.until_idle()
            assert inner.sent() == []
        await outer.until_idle()
        assert len(outer.sent()) == 1


class Lifespans:
    """A plugin that wraps something around the life of clients and workers."""

    def __init__(self):
        self.open, self.opened = [], []

    @hookimpl
    def chicory_lifespan(self, app, role):
        @asynccontextmanager
        async def lifespan():
            self.opened.append(role)
            self.open.append(role)
            yield
            self.open.remove(role)

        return lifespan()


async def test_what_was_opened_is_closed_on_each_loop(app):
    plugin = Lifespans()

    with app.plugins.including("lifespans", plugin):
        async with in_memory(app) as run:
            await app.tasks["order.place_sync"].delay(1)  # its delay_sync opens a client on the portal thread
            await run.until_idle()
            assert plugin.open == ["client", "client"]

    assert plugin.open == []
    assert sorted(plugin.opened) == ["client", "client", "worker", *["worker"] * (len(plugin.opened) - 3)]


def test_what_was_opened_on_a_loop_that_waits_is_closed_there(app):
    plugin = Lifespans()

    with app.plugins.including("lifespans", plugin), asyncio.Runner() as runner:
        with in_memory(app):
            runner.run(app.tasks["order.place"].send(1))
            assert plugin.open == ["client"]
        assert plugin.open == []


async def test_no_thread_is_left(app):
    await asyncio.to_thread(lambda: None)
    async with in_memory(app) as run:
        await app.tasks["order.place"].delay(1)
        await run.until_idle()
        names = {thread.name for thread in threading.enumerate()}

    assert not any(name.startswith("chicory-lease") for name in names)


def test_it_needs_no_pytest():
    code = "import sys; from chicory.testing import in_memory, CrashCheck, FakeClock; print('pytest' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "False"
