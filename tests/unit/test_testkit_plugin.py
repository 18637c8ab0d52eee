"""The test kit as users have it: a pytest plugin that is named, beside an app that is configured for production."""

import importlib.metadata

import pytest

pytest_plugins = ["pytester"]

TASKS = """
import asyncio
from chicory import Chicory, RetryPolicy

app = Chicory(broker="sqlite:///production/orders.db" if HAS_SQLITE else "memory://")

@app.task(name="mail.send", retry_policy=RetryPolicy(max_retries=2, retry_delay=60, jitter=False))
async def send(order: int) -> str:
    return f"sent {order}"

@app.task(name="order.place")
async def place(order: int) -> int:
    await send.delay(order)
    return order * 2

class bank:
    paid = {}

    @staticmethod
    async def charge(order, key=None):
        await asyncio.sleep(0)
        bank.paid[key or f"charge-{len(bank.paid)}"] = order

@app.task(name="pay")
async def pay(order: int) -> None:
    await bank.charge(order)

@app.task(name="pay.once")
async def pay_once(order: int) -> None:
    await bank.charge(order, key=f"order-{order}")
"""

CONFTEST = 'pytest_plugins = ["chicory.testing.pytest_plugin"]\n'
INI = "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\npythonpath = .\n"


@pytest.fixture
def project(pytester, monkeypatch):
    """A user's project; its tasks are imported anew in each test."""
    has_sqlite = any(entry.name == "sqlite" for entry in importlib.metadata.entry_points(group="chicory.plugins"))
    pytester.makepyfile(tasks=TASKS.replace("HAS_SQLITE", str(has_sqlite)))
    pytester.makeconftest(CONFTEST)
    pytester.makeini(INI + "chicory_app = tasks:app\n")
    return pytester


def test_a_users_test_runs_in_memory_until_idle(project):
    project.makepyfile(
        """
        from tasks import app, place, send

        async def test_an_order_sends_a_mail(chicory_run):
            result = await place.delay(17)
            await chicory_run.until_idle()
            assert [m.args for m in chicory_run.sent("mail.send")] == [(17,)]
            assert await result.get() == 34

        async def test_nothing_is_left_of_the_test_before(chicory_run):
            assert chicory_run.sent() == []
            assert chicory_run.failures == []
            await chicory_run.until_idle()
            assert (await app.broker.stats()).ready == 0

        async def test_a_mail_is_tried_again(chicory_run):
            chicory_run.fail("mail.send", ConnectionError("smtp is down"), times=2)
            result = await send.delay(17)
            await chicory_run.jump(3600)
            assert (await result.info()).retries == 2

        def test_code_without_event_loop(chicory_run):
            result = place.delay_sync(3)
            chicory_run.until_idle_sync()
            assert result.get_sync() == 6

        def test_without_the_kit_it_is_in_production():
            assert app.broker.address.startswith(("sqlite", "memory"))
            assert app.clients == {}
        """
    )

    imported_before = "ignore::pytest.PytestAssertRewriteWarning"  # by another test of this process
    result = project.runpytest("-W", "error", "-W", imported_before)

    result.assert_outcomes(passed=5)
    assert not (project.path / "production").exists()
    assert "chicory crash" not in result.stdout.str()


def test_the_texts_of_failures_say_what_to_do(project):
    project.makepyfile(
        """
        from tasks import app, send

        @app.task(name="poll.again")
        async def again() -> None:
            await again.delay()

        async def test_never_idle(chicory_run):
            await again.delay()
            await chicory_run.until_idle(limit=50)

        async def test_failed_for_good(chicory_run):
            chicory_run.fail(send, ConnectionError("smtp is down"), times=None)
            await send.delay(17)
            await chicory_run.jump(3600, raise_failures=True)

        async def test_misspelt(chicory_run):
            assert chicory_run.sent("mail.sned") == []
        """
    )

    result = project.runpytest()

    result.assert_outcomes(failed=3)
    result.stdout.fnmatch_lines_random(
        [
            "E*NotIdleError: not idle after 50 runs: poll.again (ran 5* times); it is sent again by what it does: *",
            "E*ConnectionError: smtp is down",
            "E*TaskFailedError: task *mail.send* ended as FAILURE with ConnectionError: smtp is down",
            "E*TaskNotFoundError: task 'mail.sned' is not registered here (5 are): did you mean 'mail.send'?",
        ]
    )


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ("", "*chicory does not know which app is tested: write `chicory_app = tasks:app` into pytest's configuration, *"),
        ("tsks:app", "*chicory_app = tsks:app: no module 'tsks'; add its folder to pytest's `pythonpath`"),
        ("tasks:ap", "*chicory_app = tasks:ap: there is no 'ap'; did you mean 'app'?"),
        ("tasks:bank", "*chicory_app = tasks:bank: that is a type, not a Chicory app"),
    ],
    ids=["not said", "no module", "no attribute", "no app"],
)
def test_an_app_that_is_not_found_is_said_so(project, setting, text):
    project.makeini(INI + f"chicory_app = {setting}\n")
    project.makepyfile("def test_it(chicory_run): ...")

    result = project.runpytest()

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([text])


def test_a_fixture_of_the_user_names_the_app(project):
    project.makeini(INI)
    project.makeconftest(
        CONFTEST + "import pytest\n\n@pytest.fixture\ndef chicory_app():\n    from tasks import app\n    return app\n"
    )
    project.makepyfile("def test_it(chicory_run):\n    assert 'mail.send' in chicory_run.app.tasks")

    project.runpytest().assert_outcomes(passed=1)


CRASHES = """
from tasks import bank, pay, pay_once

async def test_paying(chicory_crash):
    chicory_crash.watch(bank, "charge")
    await chicory_crash.check(lambda: pay.delay(17))

async def test_paying_once(chicory_crash):
    chicory_crash.watch(bank, "charge", key="key")
    await chicory_crash.check(lambda: pay_once.delay(17))
"""


def test_without_the_option_a_scenario_runs_once(project):
    project.makepyfile(CRASHES)

    result = project.runpytest()

    result.assert_outcomes(passed=2)
    assert "chicory crash" not in result.stdout.str()


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["here", "in other processes"])
def test_with_the_option_a_double_charge_is_found_and_reported(project, workers):
    project.makepyfile(CRASHES)

    result = project.runpytest_subprocess("--chicory-crash", *workers)

    result.assert_outcomes(passed=1, failed=1)
    line = 1 + next(n for n, text in enumerate((project.path / "tasks.py").read_text().splitlines()) if "charge(order)" in text)
    result.stdout.fnmatch_lines(["E*AssertionError: not safe to run twice"])
    result.stdout.fnmatch_lines(
        [
            "*= chicory crash =*",
            "*::test_paying",
            "  pay: stopped at 3 points, 1 finding",
            "    charge(17) happened twice, not once; stopped",
            f"      tasks.py:{line} in pay, at tasks.py:* in charge",
            "      after its last step, before it is settled (tasks.py:* in pay)",
            "*::test_paying_once",
            "  pay.once: stopped at 3 points, no findings",
        ]
    )


def test_the_plugin_is_never_loaded_by_itself(project):
    project.makeconftest("")
    project.makepyfile("def test_it(chicory_run): ...")

    result = project.runpytest("-o", "chicory_app=")

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*fixture 'chicory_run' not found"])
    groups = {entry.group for entry in importlib.metadata.distribution("chicory-core").entry_points}
    assert "pytest11" not in groups


def test_it_can_be_named_on_the_command_line(project):
    project.makeconftest("")
    project.makepyfile("def test_it(chicory_run): ...")

    project.runpytest("-p", "chicory.testing.pytest_plugin").assert_outcomes(passed=1)
