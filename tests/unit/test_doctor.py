"""What ``chicory doctor`` finds, and what it leaves alone."""

import asyncio
import json
from datetime import timedelta

import pytest
from click.testing import CliRunner

from chicory import Chicory, ChicoryConfig, DeliveryMode, TaskContext, Worker, WorkerConfig, checkup, doctor
from chicory.broker import Capabilities
from chicory.cli.root import cli
from chicory.doctor import examine
from chicory.errors import BrokerConnectionError
from chicory.memory import MemoryBackend
from chicory.offers import Finding, FindingLevel
from chicory.plugin import hookimpl

ERROR, WARNING, OK = FindingLevel.ERROR, FindingLevel.WARNING, FindingLevel.OK


@pytest.fixture
def make(clock, no_settings, site):
    """An app in memory, without the plugins of this machine."""

    def make(**worker):
        return Chicory(broker="memory", config=ChicoryConfig(worker=WorkerConfig(**worker)), clock=clock)

    return make


@pytest.fixture
def found(make):
    """What an app with these tasks is told, as {check: [(level, what, fix)]}; *worker* are its settings."""

    async def look(*tasks, app=None, said=(), **worker):
        app = app or make(**worker)
        for function, options in tasks:
            app.task(**options)(function)
        by_check = {}
        for d in await examine(app, said):
            by_check.setdefault(d.check, []).append((d.level, d.what, d.fix))
        return by_check

    return look


def bad(findings):
    return [(level, what) for level, what, _ in findings if level is not OK]


def plain(a: int) -> int:
    return a


async def test_an_app_that_is_well(found, monkeypatch):
    monkeypatch.setattr(checkup, "find_spec", lambda name: name)
    result = await found((plain, {}))

    assert result["tasks"] == [(OK, "1 task", "")]
    assert [check for check, findings in result.items() if bad(findings)] == ["broker"], "memory keeps nothing"
    assert {check for check, findings in result.items() for level, _, fix in findings if level is not OK and not fix} == set()


async def test_no_task_at_all(found):
    assert bad((await found())["tasks"]) == [(WARNING, "no task is registered")]


async def test_one_function_under_two_names(found):
    ((level, what),) = bad((await found((plain, {"name": "a.plain"}), (plain, {"name": "plain"})))["tasks"])

    assert level is WARNING
    assert "registered as a.plain and plain" in what


async def test_functions_made_by_a_decorator_are_not_taken_for_one(found):
    import functools

    def twice(function):
        @functools.wraps(function)
        def call(*args):
            return function(*args)

        return call

    def other(a: int) -> int:
        return a

    assert bad((await found((twice(plain), {}), (twice(other), {})))["tasks"]) == []


async def test_an_annotation_that_names_nothing(found):
    def mail(to: "Adress") -> None:
        pass

    ((level, what),) = bad((await found((mail, {"name": "mail"})))["signatures"])

    assert level is ERROR
    assert "'mail'" in what
    assert "name 'Adress' is not defined" in what


async def test_parameters_without_annotation(found):
    def add(ctx: TaskContext, a, b: int, *rest) -> None:
        pass

    ((level, what),) = bad((await found((add, {"name": "add"})))["signatures"])

    assert (level, what.partition(" without")[0]) == (WARNING, "add takes a, rest")


@pytest.mark.parametrize(
    ("options", "end"), [({}, "starts again elsewhere"), ({"delivery_mode": DeliveryMode.AT_MOST_ONCE}, "is ended as lost")]
)
async def test_a_timeout_that_a_drain_does_not_wait_for(found, options, end):
    result = await found((plain, {"name": "long", "timeout": 600, **options}), shutdown_timeout=30)

    ((level, what),) = bad(result["times"])
    assert level is WARNING
    assert what.startswith("long may run for 600 s")
    assert what.endswith(end)
    assert "times" not in await found((plain, {"timeout": 20}), shutdown_timeout=30)


async def test_a_lease_that_is_too_short_or_longer_than_any_task(found):
    assert "lease_seconds is 1 s" in bad((await found((plain, {}), lease_seconds=1))["times"])[0][1]
    assert "lease_seconds is 900 s" in bad((await found((plain, {"timeout": 20}), lease_seconds=900))["times"])[0][1]
    assert "times" not in await found((plain, {}), lease_seconds=900), "a task without timeout may run for as long"


async def test_queues_that_a_worker_would_not_read(found):
    result = await found((plain, {"queue": "mail", "name": "a"}), (plain, {"name": "b"}), queue="default,fast")

    assert result["queues"][0] == (OK, "a worker with this configuration reads default, fast", "")
    ((_, what, fix),) = result["queues"][1:]
    assert what == "a goes to the queue 'mail', which it does not read"
    assert fix == "start a worker with --queue mail, or one with --queue default,fast,mail"


async def test_another_distribution_in_our_place(found, monkeypatch):
    monkeypatch.setattr(checkup, "packages_distributions", lambda: {"chicory": ["chicory-core", "chicory"]})

    ((level, what),) = [f for f in bad((await found())["installation"]) if "distribution" in f[1]]

    assert level is ERROR
    assert "'chicory' installs an import package 'chicory' too" in what


async def test_uvloop_that_is_missing(found, monkeypatch):
    monkeypatch.setattr(checkup, "find_spec", lambda name: None)

    assert any("uvloop is not installed" in what for _, what in bad((await found())["installation"]))


async def test_a_dead_letter_queue_without_its_plugin(found):
    result = await found(use_dead_letter_queue=True)

    assert [what for level, what in bad(result["installation"]) if level is ERROR] == [
        "use_dead_letter_queue is set, and the plugin that does it is not installed: no worker will start"
    ]


async def test_memory_is_no_place_for_production(found):
    assert bad((await found())["broker"]) == [
        (WARNING, "memory:// keeps messages in the memory of its process: with that they are lost")
    ]


async def test_a_broker_that_takes_less_than_the_configuration_allows(found, make):
    app = make()
    app.broker.capabilities = Capabilities(persistent=True, max_message_bytes=1000)

    ((_, what),) = bad((await found(app=app))["broker"])

    assert "messages of 1000 bytes" in what


async def test_a_broker_and_a_backend_that_do_not_answer(found, make):
    app = make()

    async def down():
        raise BrokerConnectionError("redis://nowhere", "connection refused")

    app.broker.health = app.backend.health = down

    result = await found(app=app)

    for part in ("broker", "backend"):
        ((level, what),) = bad(result[part])
        assert level is ERROR
        assert "connection refused" in what


async def test_no_backend(found, clock):
    assert (await found(app=Chicory(broker="memory", backend=None, clock=clock)))["backend"] == [
        (OK, "there is none: no result is kept", "")
    ]


async def test_two_stores_are_named(found, make, monkeypatch):
    app = make()
    monkeypatch.setattr(MemoryBackend, "join", lambda _self, _broker: None)

    result = await found(app=app)

    assert any("are two stores" in what for _, what, _ in result["backend"])


async def test_who_lives_and_whose_clock_is_ahead(found, make, clock):
    app = make()
    async with Worker(app):
        assert (await found(app=app))["workers"] == [(OK, "1 alive", "")]
        clock._start -= timedelta(minutes=10)

        ((level, what),) = bad((await found(app=app))["workers"])

    assert level is WARNING
    assert "600 s ahead" in what


async def test_what_was_warned_of_while_the_app_was_loaded(found):
    result = await found(said=["CHICORY_WORKR_X is not a setting", "CHICORY_WORKR_X is not a setting"])

    assert result["settings"] == [(WARNING, "CHICORY_WORKR_X is not a setting", "correct its name, or remove it")]


class Strange:
    """A plugin whose checks go well, fail, and hang."""

    @hookimpl
    def chicory_doctor(self, app):
        async def well():
            return [Finding.ok(f"{len(app.tasks)} tasks seen")]

        async def fails():
            raise KeyError("host")

        async def hangs():
            await asyncio.sleep(3600)

        return [well, fails, hangs]


async def test_checks_of_plugins_and_those_that_fail(found, make, monkeypatch):
    monkeypatch.setattr(doctor, "_PATIENCE", 0.05)
    app = make()

    with app.plugins.including("strange", Strange()):
        result = await found(app=app)

    assert "tell whoever wrote it" in result["strange"][1][2]
    assert [(level, what) for level, what, _ in result["strange"]] == [
        (OK, "0 tasks seen"),
        (ERROR, "the check failed: KeyError: 'host'"),
        (ERROR, "the check did not end in 0.05 s"),
    ]


# --- the command -----------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    number = iter(range(100))

    def run(source, *arguments):
        name = f"doctored_{tmp_path.name}_{next(number)}".replace("-", "_")
        (tmp_path / f"{name}.py").write_text(f"from chicory import Chicory\napp = Chicory(broker='memory')\n{source}")
        return CliRunner().invoke(cli, ["doctor", f"{name}:app", *arguments])

    return run


def test_warnings_pass_unless_they_are_taken_strictly(run):
    source = "@app.task\ndef add(a, b: int) -> int: return b\n"

    done = run(source)

    assert done.exit_code == 0, done.output
    assert "takes a without annotation" in done.output
    assert "fix: annotate it" in done.output
    assert done.output.splitlines()[-1].startswith("no errors, ")
    assert run(source, "--strict").exit_code == 1


def test_an_error_fails(run):
    done = run("@app.task\ndef add(a: 'Nothing') -> int: return 1\n")

    assert done.exit_code == 1
    assert "1 error, " in done.output


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import nothing_of_the_kind", "No module named 'nothing_of_the_kind'"),
        ("raise RuntimeError('no password')", "RuntimeError: no password"),
        ("@app.task(timeout=-1)\ndef f() -> None: ...\n", "timeout"),
        ("del app", "has no 'app'"),
    ],
)
def test_what_does_not_import_is_a_finding(run, source, reason):
    done = run(source, "--json")

    (finding,) = json.loads(done.output)
    assert done.exit_code == 1
    assert (finding["check"], finding["level"]) == ("app", "error")
    assert reason in finding["what"]


def test_for_programs(run):
    done = run("@app.task\ndef add(a: int) -> int: return a\n", "--json")

    findings = json.loads(done.output)
    assert done.exit_code == 0
    assert {frozenset(finding) for finding in findings} == {frozenset({"check", "level", "what", "fix"})}
    assert {finding["level"] for finding in findings} <= {"ok", "warning"}
