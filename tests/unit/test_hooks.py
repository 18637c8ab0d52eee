"""Every hook: when it is called, and what its answer does. A plugin here is registered as those of the core are."""

import asyncio
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import click
import msgspec
import pluggy
import pytest
from msgspec.structs import replace

import chicory.app
from chicory import Chicory, ChicoryConfig, TaskContext, TaskFailedError, Worker, logs
from chicory.builtin import BUILTINS
from chicory.clock import SYSTEM_CLOCK
from chicory.errors import BrokerConnectionError, EncodingError, PluginBrokenError, PluginNotFoundError, TaskDefinitionError
from chicory.hookspecs import hookspec
from chicory.memory import MemoryBackend, MemoryBroker
from chicory.plugin import (
    BackendSpec,
    BrokerSpec,
    ComponentSpec,
    ExecuteMiddleware,
    Finding,
    FindingLevel,
    Listener,
    OptionSpec,
    Outcome,
    PluginSettings,
    PublishMiddleware,
    SerializerSpec,
    Stage,
    hookimpl,
    settings_from,
)
from chicory.settings import ConfigurationWarning

pytestmark = pytest.mark.filterwarnings("error::chicory.settings.ConfigurationWarning")


@pytest.fixture
def install(monkeypatch):
    """Registers objects as plugins of every app made from now on, by name."""

    def register(**plugins):
        monkeypatch.setattr(chicory.app, "BUILTINS", {**BUILTINS, **plugins})

    return register


def plugin(**hooks):
    """A plugin object that implements these hooks."""
    made = type("Fake", (), {})()
    for name, function in hooks.items():
        setattr(made, name, hookimpl(function))
    return made


def test_every_hook_has_a_test_here():
    hooks = {name.removeprefix("chicory_") for name in vars(chicory.hookspecs) if name.startswith("chicory_")}
    tests = {name for name in globals() if name.startswith("test_")}

    assert [hook for hook in hooks if not any(test.startswith(f"test_{hook}") for test in tests)] == []


# --- extension -------------------------------------------------------------------------------------


def test_add_hookspecs_lets_a_plugin_have_hooks_of_its_own(install):
    class Specs:
        @hookspec
        def chicory_schedules(self):
            """Schedules that plugins bring."""

    install(
        scheduler=plugin(chicory_add_hookspecs=lambda manager: manager.add_hookspecs(Specs)),
        user=plugin(chicory_schedules=lambda: ["every night"]),
    )

    app = Chicory(broker="memory")

    assert app.plugins.collect("chicory_schedules") == [("user", ["every night"])]


def test_settings_make_a_plugins_variables_known(install, monkeypatch):
    class MailSettings(PluginSettings):
        model_config = settings_from("mail")
        server: str = "localhost"

    install(mail=plugin(chicory_settings=lambda: MailSettings))
    monkeypatch.setenv("CHICORY_MAIL_SERVER", "mx.example.com")
    Chicory(broker="memory")
    assert MailSettings().server == "mx.example.com"

    monkeypatch.setenv("CHICORY_MAIL_SERVR", "typo")
    with pytest.warns(ConfigurationWarning, match="CHICORY_MAIL_SERVR is not a setting.*CHICORY_MAIL_SERVER"):
        Chicory(broker="memory")


# --- broker, backend, serializer -------------------------------------------------------------------


async def test_register_brokers_and_backends_offer_names_and_schemes(install):
    built = []

    def broker(place):
        built.append(("broker", place.url))
        return MemoryBroker(place.clock)

    def backend(place):
        built.append(("backend", place.url))
        return MemoryBackend(store=place.broker.store)

    install(
        kafka=plugin(
            chicory_register_brokers=lambda: [BrokerSpec(name="kafka", schemes=("kafka",), build=broker)],
            chicory_register_backends=lambda: [BackendSpec(name="kafka", schemes=("kafka",), build=backend)],
        )
    )

    Chicory(broker="kafka")
    app = Chicory(broker="kafka://host:9092")

    assert built == [("broker", None), ("backend", None), ("broker", "kafka://host:9092"), ("backend", "kafka://host:9092")]
    assert app.backend is not None


def test_register_backends_two_of_one_name_are_a_conflict(install):
    spec = BackendSpec(name="s3", build=lambda place: MemoryBackend(place.clock))
    install(one=plugin(chicory_register_backends=lambda: [spec]), two=plugin(chicory_register_backends=lambda: [spec]))

    with pytest.raises(Exception, match="both offer the backend 's3'"):
        Chicory(broker="memory", backend="s3")


class Msgpack:
    content_type = "application/msgpack"

    def dumps(self, value):
        return msgspec.msgpack.encode(value)

    def loads(self, data):
        try:
            return msgspec.msgpack.decode(data)
        except msgspec.MsgspecError as error:
            raise EncodingError(str(error)) from error


async def test_register_serializers_offer_content_types_that_must_be_enabled(install, work):
    install(
        pack=plugin(chicory_register_serializers=lambda: [SerializerSpec(content_type=Msgpack.content_type, build=Msgpack)])
    )
    config = ChicoryConfig(serializer=Msgpack.content_type)
    app = Chicory(broker="memory", config=config)

    @app.task
    async def where(path: Path, depth: int = 1) -> dict[str, Path]:
        return {"found": path / str(depth)}

    async with work(app):
        result = await where.delay(Path("/a"), depth=2)
        assert await result == {"found": Path("/a/2")}
        (record,) = await (await app.client()).connection.backend.fetch([result.task_id])
        assert b'"content_type":"application/msgpack"' in record.body

    assert Msgpack.content_type not in Chicory(broker="memory").serializers
    with pytest.raises(PluginNotFoundError, match="the serializer 'application/yaml'"):
        Chicory(broker="memory", config=ChicoryConfig(accept_content=["application/yaml"]))


def test_register_components_offer_typed_services(install):
    class Locks:
        """A service."""

    class Unknown:
        """Nobody offers it."""

    made = []

    def build(app):
        made.append(app)
        return Locks()

    install(locks=plugin(chicory_register_components=lambda: [ComponentSpec(protocol=Locks, name="locks", build=build)]))
    app = Chicory(broker="memory")

    assert app.require(Locks) is app.require(Locks)
    assert made == [app]
    with pytest.raises(PluginNotFoundError, match="no installed plugin offers the component 'Unknown'"):
        app.require(Unknown)


# --- lifecycle -------------------------------------------------------------------------------------


def test_configure_is_called_once_with_the_finished_app(install):
    seen = []
    install(late=plugin(chicory_configure=lambda app: seen.append((app.config.worker.concurrency, app.backend))))

    app = Chicory(broker="memory")

    assert seen == [(app.config.worker.concurrency, app.backend)]


def test_configure_that_fails_stops_the_app_and_names_the_plugin(install):
    def fail(app):
        raise RuntimeError("no licence")

    install(paid=plugin(chicory_configure=fail))

    with pytest.raises(PluginBrokenError, match="plugin 'paid'.*chicory_configure raised RuntimeError: no licence"):
        Chicory(broker="memory")


def test_task_options_are_taken_checked_and_have_defaults(install):
    spec = OptionSpec(name="unique", type=bool, default=False)
    install(unique=plugin(chicory_task_options=lambda: [spec]))
    app = Chicory(broker="memory")

    @app.task(unique=True)
    def one() -> None: ...

    @app.task
    def two() -> None: ...

    assert (one.options_of_task.extra, two.options_of_task.extra) == ({"unique": True}, {"unique": False})
    with pytest.raises(TaskDefinitionError, match="option 'unique' takes bool, not str"):
        app.task(unique="yes")(lambda: None)
    with pytest.raises(TaskDefinitionError, match="unknown option 'unqiue': did you mean 'unique'"):
        app.task(unqiue=True)(lambda: None)
    with pytest.raises(TaskDefinitionError, match="unknown option 'timout': did you mean 'timeout'"):
        app.task(timout=3)(lambda: None)


def test_task_registered_tells_of_each_task(install):
    seen = []
    install(watch=plugin(chicory_task_registered=lambda app, task: seen.append(task.name)))
    app = Chicory(broker="memory")

    @app.task(name="a.b")
    def one() -> None: ...

    assert seen == ["a.b"]


async def test_lifespan_surrounds_client_and_worker(install):
    told = []

    def lifespan_of(name):
        @asynccontextmanager
        async def lifespan(role):
            told.append(f"{name} enters {role}")
            yield
            told.append(f"{name} leaves {role}")

        return plugin(chicory_lifespan=lambda app, role: lifespan(role))

    install(b=lifespan_of("b"), a=lifespan_of("a"), none=plugin(chicory_lifespan=lambda role: None))
    app = Chicory(broker="memory")

    async with app, Worker(app):
        pass

    assert told == [
        *("a enters client", "b enters client", "a enters worker", "b enters worker"),
        *("b leaves worker", "a leaves worker", "b leaves client", "a leaves client"),
    ]


async def test_event_sinks_get_what_is_published_and_run(install, work):
    told = []
    install(tell=plugin(chicory_event_sinks=lambda app: [lambda event: told.append((event.kind, event.task))]))
    app = Chicory(broker="memory")

    @app.task(name="one")
    async def one() -> int:
        return 1

    async with work(app):
        await (await one.delay())

    assert [kind for kind, task in told if task == "one"] == ["task.published", "task.started", "task.succeeded"]


async def test_lifespan_of_a_worker_sees_the_worker(install):
    seen = {}

    @asynccontextmanager
    async def lifespan(role, worker):
        seen[role] = worker
        yield

    install(look=plugin(chicory_lifespan=lambda role, worker: lifespan(role, worker)))
    app = Chicory(broker="memory")

    async with app, Worker(app) as worker:
        assert seen == {"client": None, "worker": worker}
        assert seen["worker"].get_stats().worker_id == worker.worker_id


async def test_event_sinks_may_be_listeners_for_some_kinds_only(install, work, monkeypatch):
    told, made = [], []
    listener = Listener(kinds=frozenset({"worker.started", "task.succeeded"}), sink=lambda event: told.append(event.kind))
    install(tell=plugin(chicory_event_sinks=lambda app: [listener]))
    monkeypatch.setattr("chicory.client.tell", lambda sinks, event: made.append(event))
    app = Chicory(broker="memory")

    @app.task(name="one")
    async def one() -> int:
        return 1

    async with work(app):
        await (await one.delay())

    assert told == ["worker.started", "task.succeeded"]
    assert made == []


async def test_event_sinks_that_raise_do_not_touch_a_call_that_was_published(install, store):
    def broken(event):
        raise RuntimeError("no room in the log")

    install(tell=plugin(chicory_event_sinks=lambda app: [broken]))
    app = Chicory(broker="memory")

    @app.task(name="one")
    async def one() -> int:
        return 1

    async with app:
        await one.delay()

        assert (await app.broker.stats()).ready == 1


def test_log_facts_are_added_to_each_event(install, capsys):
    def broken():
        raise LookupError("no trace")

    install(facts=plugin(chicory_log_facts=lambda app: [lambda: {"trace_id": "4bf9", "event": "never"}, broken]))
    sources = Chicory(broker="memory").offered("chicory_log_facts")
    before = list(logs._facts)
    try:
        logs.learn_facts(sources)
        logs.learn_facts(sources)
        event = logs.add_facts(None, "info", {"event": "task_ended"})
    finally:
        logs._facts[:] = before

    assert event == {"event": "task_ended", "trace_id": "4bf9", "facts_missing": "LookupError"}


async def test_doctor_checks_return_findings(install):
    async def check():
        return [Finding(level=FindingLevel.WARNING, what="no persistence", fix="turn it on")]

    install(doctor=plugin(chicory_doctor=lambda app: [check]))
    app = Chicory(broker="memory")

    ((name, (collected,)),) = app.plugins.collect("chicory_doctor", app=app)

    assert (name, (await collected())[0].fix) == ("doctor", "turn it on")


# --- middleware ------------------------------------------------------------------------------------


async def test_publish_middleware_may_change_leave_out_and_refuse(install, work):
    async def stamp(messages, proceed):
        await proceed([replace(m, headers={**m.headers, "by": "stamp"}) for m in messages])

    async def leave_out(messages, proceed):
        await proceed([m for m in messages if m.headers.get("drop") is None])

    async def refuse(messages, proceed):
        if any("refuse" in m.headers for m in messages):
            raise PermissionError("not today")
        await proceed(messages)

    layers = [
        PublishMiddleware(stage=Stage.ADMIT, name="leave_out", layer=leave_out),
        PublishMiddleware(stage=Stage.OBSERVE, name="stamp", layer=stamp),
        PublishMiddleware(stage=Stage.RECOVER, name="refuse", layer=refuse),
    ]
    install(out=plugin(chicory_publish_middleware=lambda app: layers))
    app = Chicory(broker="memory")

    @app.task
    async def headers(ctx: TaskContext) -> dict[str, str]:
        return dict(ctx.headers)

    async with work(app):
        assert await (await headers.options(headers={"a": "1"}).delay()) == {"a": "1", "by": "stamp"}
        with pytest.raises(PermissionError, match="not today"):
            await headers.options(headers={"refuse": "1"}).delay()
        dropped = await headers.options(headers={"drop": "1"}).delay()
        with pytest.raises(Exception, match="no result for task id"):
            await dropped


async def test_publish_middleware_may_edit_arguments(install, work):
    async def double(messages, proceed):
        await proceed([replace(m, args=[2 * a for a in m.args]) for m in messages])

    install(edit=plugin(chicory_publish_middleware=lambda app: [PublishMiddleware(stage=500, name="edit", layer=double)]))
    app = Chicory(broker="memory")

    @app.task
    async def same(n: int) -> int:
        return n

    async with work(app):
        assert await (await same.delay(21)) == 42


async def test_execute_middleware_is_ordered_by_stage_then_name(install, work):
    passed = []

    def layer(stage, name):
        async def run(attempt, proceed):
            passed.append(f"in {name}")
            outcome = await proceed(attempt)
            passed.append(f"out {name}")
            return outcome

        return ExecuteMiddleware(stage=stage, name=name, layer=run)

    install(
        one=plugin(chicory_execute_middleware=lambda app: [layer(900, "inner"), layer(100, "outer b")]),
        two=plugin(chicory_execute_middleware=lambda app: [layer(100, "outer a")]),
    )
    app = Chicory(broker="memory")

    @app.task
    async def one() -> None: ...

    async with work(app):
        await (await one.delay())

    assert passed == ["in outer a", "in outer b", "in inner", "out inner", "out outer b", "out outer a"]


@pytest.mark.parametrize(
    ("layer_result", "error_type"), [("raises", "ZeroDivisionError"), ("junk", "TypeError")], ids=["raises", "returns junk"]
)
async def test_execute_middleware_that_breaks_ends_the_attempt_as_an_error(install, work, layer_result, error_type):
    async def broken(attempt, proceed):
        return 1 / 0 if layer_result == "raises" else "not an outcome"

    install(bad=plugin(chicory_execute_middleware=lambda app: [ExecuteMiddleware(stage=600, name="bad", layer=broken)]))
    app = Chicory(broker="memory")

    @app.task
    async def one() -> None: ...

    async with work(app):
        with pytest.raises(TaskFailedError) as caught:
            await asyncio.wait_for(await one.delay(), 5)

    assert caught.value.error_type == error_type


async def test_execute_middleware_may_answer_for_the_task(install, work):
    async def cached(attempt, proceed):
        result = attempt.task.signature.encode_result(99, check=True, serializer=app.serializer)
        return Outcome(value=99, result=result)

    install(cache=plugin(chicory_execute_middleware=lambda app: [ExecuteMiddleware(stage=600, name="cache", layer=cached)]))
    app = Chicory(broker="memory")
    ran = []

    @app.task
    async def one() -> int:
        ran.append(1)
        return 1

    async with work(app):
        assert await (await one.delay()) == 99
    assert ran == []


async def test_settle_observers_are_told_of_each_try_and_harm_nothing(install, work, monkeypatch):
    told = []

    def broken(batch):
        raise RuntimeError("no room")

    install(look=plugin(chicory_settle_observers=lambda app: [broken, told.append]))
    app = Chicory(broker="memory", backend=MemoryBackend(SYSTEM_CLOCK))  # a store of its own: the broker settles
    settle, failures = MemoryBroker.settle, [BrokerConnectionError("memory://", "gone")]

    async def settle_later(self, settlements):
        if failures:
            raise failures.pop()
        return await settle(self, settlements)

    monkeypatch.setattr(MemoryBroker, "settle", settle_later)

    @app.task
    async def one() -> int:
        return 1

    async with work(app):
        sent = await one.delay()
        assert await sent.get(timeout=20) == 1

    failed, settled = [batch for batch in told if any(s.ends for s in batch.settlements)]
    assert (type(failed.error), failed.answers) == (BrokerConnectionError, ())
    assert (settled.error, list(settled.answers)) == (None, ["done"])
    assert [s.delivery.envelope.id for s in settled.settlements] == [sent.task_id]
    assert settled.seconds >= 0


CARRYING = """
import contextlib, contextvars
from chicory import Chicory
from chicory.plugin import ChildContext, hookimpl

word = contextvars.ContextVar("word", default="nothing")

@contextlib.contextmanager
def enter(carried):
    token = word.set(carried["word"])
    yield
    word.reset(token)

@hookimpl
def chicory_child_contexts():
    return [ChildContext(name="word", pack=lambda: {"word": "from the worker"}, enter=enter)]

app = Chicory(broker="memory://", backend="memory://")

@app.task(execution="process")
def said() -> str:
    return word.get()
"""


async def test_child_contexts_go_with_a_task_into_its_process(tmp_path, monkeypatch, work):
    (tmp_path / "carrying.py").write_text(CARRYING)
    info = tmp_path / "carrying-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: carrying\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[chicory.plugins]\ncarrying = carrying\n")
    monkeypatch.syspath_prepend(tmp_path)
    import carrying

    try:
        async with work(carrying.app):
            assert await (await carrying.said.delay()).get(timeout=50) == "from the worker"
    finally:
        del sys.modules["carrying"]


# --- command line ------------------------------------------------------------------------------------


def test_cli_lets_a_plugin_add_commands(monkeypatch, capsys):
    import chicory.cli.extension
    from chicory.cli.root import _Root

    @click.command("greet", short_help="say hello")
    def greet():
        click.echo("hello")

    added = plugin(chicory_cli=lambda cli: cli.add_command(greet))
    monkeypatch.setattr(chicory.cli.extension, "BUILTINS", {**BUILTINS, "greeter": added})
    root = _Root("chicory")

    root.main(["greet"], standalone_mode=False)
    root.main(["--help"], standalone_mode=False)

    shown = capsys.readouterr().out
    assert shown.startswith("hello")
    assert "say hello" in shown


def test_collecting_wants_no_more_arguments_than_a_plugin_names(install):
    install(bare=plugin(chicory_configure=lambda: None))

    app = Chicory(broker="memory")

    assert isinstance(app.plugins._manager, pluggy.PluginManager)
    assert sys.modules["chicory.app"]
