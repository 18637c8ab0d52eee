"""Crashes on demand: a task is stopped dead at each of its awaits, delivered again, and what happened is compared."""

import asyncio
import gc
import inspect

import pytest

from chicory import Chicory, DeliveryMode, RetryPolicy, TaskContext
from chicory.memory import MemoryBackend, MemoryBroker
from chicory.middleware import current_attempt
from chicory.testing import CrashCheck, in_memory


class Shop:
    """The world outside, with its memory."""

    def __init__(self):
        self.charged, self.log = [], []

    async def charge(self, order, key=None):
        await asyncio.sleep(0)
        self.charged.append(order)

    def note(self, text):
        self.log.append(text)


@pytest.fixture
def app():
    return Chicory(broker=MemoryBroker(), backend=MemoryBackend())


@pytest.fixture
def shop():
    return Shop()


@pytest.fixture
def crash(app, shop):
    with CrashCheck(app, crashes=True) as check:
        check.watch(shop, "note")
        yield check


def line_of(function, text):
    lines, first = inspect.getsourcelines(function)
    return first + next(number for number, line in enumerate(lines) if text in line)


async def findings(check, scenario, **options):
    """What is found, as (text, places)."""
    with pytest.raises(AssertionError, match="not safe to run twice"):
        await check.check(scenario, **options)
    return {finding.text: finding.places for finding in check.reports[-1].findings}


# --- the points --------------------------------------------------------------------------------------


async def test_a_task_is_stopped_at_each_await_and_delivered_again(app, shop, crash):
    runs = []

    @app.task(name="steps")
    async def steps() -> None:
        runs.append(current_attempt.get().delivery.delivery_count)
        await asyncio.sleep(0)
        await shop.charge(1)
        runs.append("end")

    report = await crash.check(steps.delay)

    assert report.points == 4  # before, two awaits, after
    undisturbed, before, first, second, after = [1, "end"], [1, "end"], [1], [1], [1, "end"]
    before[0] = 2  # the first delivery never began
    assert runs == [*undisturbed, *before, *first, 2, "end", *second, 2, "end", *after, 2, "end"]
    assert str(report) == "steps: stopped at 4 points, no findings"


async def test_the_place_of_a_crash_is_named(app, shop, crash):
    crash.watch(shop, "charge")

    @app.task(name="pay")
    async def pay(order: int) -> None:
        await shop.charge(order)
        await asyncio.sleep(0)

    found = await findings(crash, lambda: pay.delay(17))

    here = "tests/unit/test_testkit_crash.py"
    function, inner = pay.function, line_of(Shop.charge, "sleep")
    assert found == {
        "charge(17) happened twice, not once": (
            f"{here}:{line_of(function, 'charge')} in pay, at {here}:{inner} in charge",
            f"{here}:{line_of(function, 'sleep')} in pay",
            f"after its last step, before it is settled ({here}:{line_of(function, '@app.task')} in {function.__qualname__})",
        )
    }
    text = str(crash.reports[-1])
    assert text.startswith("pay: stopped at 4 points, 1 finding\n  charge(17) happened twice, not once; stopped\n    tests/")


async def test_no_finally_block_of_a_dead_task_runs(app, shop, crash):
    ends = []

    @app.task
    async def careful() -> None:
        try:
            await asyncio.sleep(0)
        except BaseException as error:
            ends.append(error)
            raise
        finally:
            ends.append("finally")

    report = await crash.check(careful.delay)
    gc.collect()

    assert report.points == 3
    assert ends == ["finally"] * 5  # undisturbed, before, after (twice, for it had ended), and once more at its await


async def test_what_a_task_has_spawned_dies_with_it(app, shop, crash):
    ends = []

    async def child(name):
        try:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            shop.charged.append(name)
        finally:
            ends.append(name)

    @app.task
    async def parent() -> None:
        await asyncio.gather(child("a"), child("b"))

    report = await crash.check(parent.delay)

    assert report.points == 7  # before, at gather, two awaits of each child, after
    assert ends == shop.charged
    # Once undisturbed and once in each pass again; where it was stopped at its very end, also before that; a child that was
    # stopped at its second await had let the other one get there, and no further.
    assert len(shop.charged) == 2 * (1 + 7 + 1)


async def test_points_of_other_tasks_are_left_out_if_tasks_are_named(app, shop, crash):
    @app.task(name="first")
    async def first() -> None:
        await second.options(task_id="second-1").delay()

    @app.task(name="second")
    async def second() -> None:
        await asyncio.sleep(0)

    everything = await crash.check(first.delay)
    only = await crash.check(first.delay, tasks=(second,))

    assert everything.tasks == ("first", "second")
    assert (only.tasks, only.points) == (("second",), 3)


async def test_a_task_that_may_run_once_only_is_not_stopped(app, crash):
    @app.task(delivery_mode=DeliveryMode.AT_MOST_ONCE)
    async def once() -> None:
        await asyncio.sleep(0)

    with pytest.raises(AssertionError, match="no task ran that could be stopped"):
        await crash.check(once.delay)


async def test_retries_are_stopped_too(app, shop, crash):
    @app.task(retry_policy=RetryPolicy(max_retries=1, retry_delay=600, jitter=False))
    async def shaky(ctx: TaskContext) -> None:
        await asyncio.sleep(0)
        if ctx.retries == 0:
            raise ConnectionError
        shop.note("done")

    found = await findings(crash, shaky.delay)

    (places,) = found.values()
    assert list(found) == ["note('done') happened twice, not once"]
    assert len(places) == 1
    assert places[0].startswith("after its last step")
    assert crash.reports[-1].points == 6


# --- what is found -----------------------------------------------------------------------------------


async def test_a_key_that_stays_the_same_cures_a_double_charge(app, shop, crash):
    crash.watch(shop, "charge", key="key")

    @app.task
    async def by_order(order: int) -> None:
        await shop.charge(order, key=f"order-{order}")

    @app.task
    async def by_chance(order: int) -> None:
        await shop.charge(order, key=object())

    report = await crash.check(lambda: by_order.delay(17))
    found = await findings(crash, lambda: by_chance.delay(17))

    assert report.findings == ()
    assert list(found) == ["charge() happened with 2 different keys, not 1"]


async def test_what_is_marked_done_too_early_is_lost(app, shop, crash):
    done = set()

    @app.task
    async def too_early(order: int) -> None:
        if order in done:
            return
        done.add(order)
        await asyncio.sleep(0)
        shop.note("charged")

    async def scenario():
        done.clear()
        await too_early.delay(17)

    found = await findings(crash, scenario)

    (places,) = found.values()
    assert list(found) == ["note() happened not at all, not once: it is lost"]
    assert places == (f"tests/unit/test_testkit_crash.py:{line_of(too_early.function, 'sleep')} in too_early",)


async def test_a_place_names_no_line_of_a_plugin(app, shop, crash, tmp_path):
    plugin = {"__name__": "chicory_audit.layers", "asyncio": asyncio}
    source = "async def wait():\n    await asyncio.sleep(0)\n"
    exec(compile(source, str(tmp_path / "layers.py"), "exec"), plugin)

    @app.task
    async def twice(order: int) -> None:
        shop.note(f"charged {order}")
        await plugin["wait"]()

    found = await findings(crash, lambda: twice.delay(17))

    assert list(found) == ["note('charged 17') happened twice, not once"]
    assert not any("layers.py" in place for places in found.values() for place in places)


async def test_a_second_run_that_fails_is_found(app, shop, crash):
    rows = set()

    @app.task(name="insert")
    async def insert(row: int) -> None:
        if row in rows:
            raise ValueError(f"row {row} exists")
        rows.add(row)
        await asyncio.sleep(0)

    async def scenario():
        rows.clear()
        await insert.delay(1)

    found = await findings(crash, scenario)

    assert list(found) == ["task insert failed when it was delivered again: ValueError: row 1 exists"]


async def test_a_message_sent_twice_is_found_unless_it_has_an_id_or_may_be(app, shop, crash):
    @app.task(name="mail")
    async def mail(order: int) -> None: ...

    @app.task
    async def careless(order: int) -> None:
        await mail.delay(order)

    @app.task
    async def careful(order: int) -> None:
        await mail.options(task_id=f"mail-{order}").delay(order)

    found = await findings(crash, lambda: careless.delay(17))
    assert list(found) == ["mail(17) was sent twice, not once"]
    assert (await crash.check(lambda: careful.delay(17))).findings == ()
    crash.may_repeat(mail)
    assert (await crash.check(lambda: careless.delay(17))).findings == ()


async def test_what_is_idempotent_may_happen_twice(app, shop):
    @app.task
    async def put(order: int) -> None:
        await shop.charge(order)

    with CrashCheck(app, crashes=True) as crash:
        crash.watch(shop, "charge", idempotent=True)
        report = await crash.check(lambda: put.delay(1))

    assert (report.points, report.findings) == (3, ())
    assert "charge" not in vars(shop)


async def test_what_a_scenario_asserts_counts_after_a_crash(app, shop, crash):
    @app.task
    async def add(order: int) -> None:
        shop.charged.append(order)
        await asyncio.sleep(0)

    async def scenario():
        shop.charged.clear()
        await add.delay(17)
        await crash.run.until_idle()
        assert shop.charged == [17], "charged more than once"

    found = await findings(crash, scenario)

    assert [text.partition("\n")[0] for text in found] == ["the scenario raised AssertionError: charged more than once"]


async def test_what_a_scenario_raises_without_a_crash_is_the_tests_own(app, crash):
    @app.task
    async def nothing() -> None: ...

    async def scenario():
        await nothing.delay()
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        await crash.check(scenario)


async def test_what_would_die_with_the_process_can_be_forgotten(app, shop, crash):
    locks = {"stock": asyncio.Lock()}

    @app.task
    async def locked() -> None:
        async with locks["stock"]:
            await asyncio.sleep(0)

    async def new_process():
        locks["stock"] = asyncio.Lock()

    report = await crash.check(locked.delay, on_restart=new_process)

    assert (report.points, report.findings) == (3, ())


async def test_tasks_that_wait_for_others_need_more_than_one_at_once(app, crash):
    @app.task(name="inner")
    async def inner() -> int:
        return 1

    @app.task(name="outer")
    async def outer() -> int:
        return await (await inner.options(task_id="inner-1").delay()).get()

    report = await crash.check(outer.delay, concurrency=4)

    assert report.findings == ()
    assert set(report.tasks) == {"inner", "outer"}


# --- sync code, and without crashes ------------------------------------------------------------------


def test_a_sync_task_is_stopped_before_and_after(app, shop, crash):
    @app.task(name="pay_sync")
    def pay_sync(order: int) -> None:
        shop.note(order)

    with pytest.raises(AssertionError, match=r"note\(17\) happened twice, not once; stopped\n    after its last step"):
        crash.check_sync(lambda: pay_sync.delay_sync(17))

    (report,) = crash.reports
    assert (report.points, len(report.findings)) == (2, 1)


def test_an_async_scenario_is_refused_where_nobody_awaits_it(app, crash):
    async def scenario(): ...

    with pytest.raises(TypeError, match=r"write `await chicory_crash\.check\(scenario\)`"):
        crash.check_sync(scenario)


async def test_without_crashes_it_runs_once(app, shop):
    @app.task(name="pay")
    async def pay(order: int) -> None:
        await shop.charge(order)

    with CrashCheck(app, crashes=False) as crash:
        crash.watch(shop, "charge")
        report = await crash.check(lambda: pay.delay(17))

    assert shop.charged == [17]
    assert str(report) == "pay: run once, without crashes"


async def test_a_scenario_without_a_task_proves_nothing(app, crash):
    async def scenario(): ...

    with pytest.raises(AssertionError, match="the scenario sends none"):
        await crash.check(scenario)


async def test_very_many_points_are_refused(app, crash):
    @app.task
    async def long() -> None:
        for _ in range(20):
            await asyncio.sleep(0)

    with pytest.raises(AssertionError, match="there are 22 points to stop at: choose tasks=, or raise limit=10"):
        await crash.check(long.delay, limit=10)


async def test_a_scenario_that_is_another_each_time_is_said_so(app, shop, crash):
    lengths = iter([5, 0, 0, 0, 0, 0, 0])

    @app.task
    async def varying() -> None:
        for _ in range(next(lengths, 0)):
            await asyncio.sleep(0)

    report = await crash.check(varying.delay, tasks=(varying,))

    assert len(report.not_reached) == 5  # of the 7 points only two come again
    assert "the scenario is not the same each time" in str(report)


async def test_the_loop_is_given_back(app, shop, crash):
    loop = asyncio.get_running_loop()
    before = loop.get_task_factory()

    @app.task
    async def one() -> None:
        await asyncio.sleep(0)

    await crash.check(one.delay)

    assert loop.get_task_factory() is before
    assert {task for task in asyncio.all_tasks() if task is not asyncio.current_task()} == set()


async def test_a_run_is_there_only_during_the_scenario(crash):
    with pytest.raises(RuntimeError, match="only while check"):
        _ = crash.run


async def test_a_check_may_stand_in_a_run(app, crash):
    @app.task
    async def one() -> None:
        await asyncio.sleep(0)

    async with in_memory(app) as run:
        await one.delay()
        await crash.check(one.delay)

        assert len(run.sent()) == 1
