"""Every pair of this repository's plugins, all of them, and all but each: tasks run, and nobody stands in another's way."""

import json
from contextlib import contextmanager
from importlib.metadata import entry_points

import pytest
from click.testing import CliRunner

from chicory import Chicory, RetryPolicy, TaskContext, TaskFailedError, Worker, WorkerConfig
from chicory.builtin import BUILTINS
from chicory.cli.root import cli
from chicory.errors import PluginNotFoundError
from chicory.launch import Launch, launching
from chicory.plugin import new_id
from chicory.plugins import Plugins

from .servers import PAIRS, PLUGINS, Servers

pytestmark = [pytest.mark.usefixtures("no_settings"), pytest.mark.timeout(180)]

ALL_BUT_ONE = [tuple(name for name in PLUGINS if name != blocked) for blocked in PLUGINS]


def named(selection):
    return "+".join(selection) or "none"


@pytest.fixture(scope="session")
def servers(tmp_path_factory):
    servers = Servers(tmp_path_factory.mktemp("servers"))
    yield servers
    servers.end()


@contextmanager
def only(selection):
    """Of the plugins of this repository, those of *selection* and no other."""
    with launching(Launch(plugins=tuple(f"no:{name}" for name in PLUGINS if name not in selection))):
        yield


def offered(kind, selection):
    """The brokers (backends) that plugins of *selection* offer; that of the core where they have none."""
    offers = getattr(Plugins(builtins=BUILTINS), kind)()
    return [name for name, (plugin, _) in sorted(offers.items()) if plugin in selection] or ["memory"]


def states_of(app):
    return {info.name: info.state for info in app.plugins}


async def run_tasks(app):
    """One that ends well, one that needs a retry, one that fails: as they do without any plugin."""
    queue = f"q-{new_id()}"

    @app.task(name="add", queue=queue)
    async def add(a: int, b: int) -> int:
        return a + b

    @app.task(name="second", queue=queue, retry_policy=RetryPolicy(max_retries=2, retry_delay=0.01, jitter=False))
    def second(ctx: TaskContext) -> int:
        if ctx.retries == 0:
            raise ConnectionError("not yet")
        return ctx.retries

    @app.task(name="broken", queue=queue)
    def broken() -> None:
        raise ValueError("no good")

    async with app, Worker(app, WorkerConfig(queue=queue, concurrency=4)):
        results = [await add.delay(1, 2), await second.delay(), await broken.delay()]
        assert await results[0].get(timeout=60) == 3
        assert await results[1].get(timeout=60) == 1
        with pytest.raises(TaskFailedError, match="no good") as failed:
            await results[2].get(timeout=60)
    assert failed.value.error_type == "ValueError"


def test_every_plugin_of_the_repository_is_installed_here():
    installed = {entry.name for entry in entry_points(group="chicory.plugins")}

    assert [name for name in PLUGINS if name not in installed] == [], "add it to the tox env `all`"


def on_each(selections):
    """A selection with each broker and each backend that it offers."""
    cases = [(s, broker, backend) for s in selections for broker in offered("brokers", s) for backend in offered("backends", s)]
    return pytest.mark.parametrize(
        ("selection", "broker", "backend"), cases, ids=[f"{named(s)}: {broker}, {backend}" for s, broker, backend in cases]
    )


@on_each(PAIRS)
async def test_every_pair(selection, broker, backend, servers):
    with only(selection):
        app = Chicory(broker=servers.address(broker), backend=servers.address(backend))

    assert {name for name, state in states_of(app).items() if state == "active"} == {*selection, *BUILTINS}
    await run_tasks(app)


@pytest.mark.parametrize("broker", ["memory", *offered("brokers", PLUGINS)])
async def test_the_whole(broker, servers):
    app = Chicory(broker=servers.address(broker))

    assert set(states_of(app).values()) == {"active"}
    await run_tasks(app)


@pytest.mark.parametrize("selection", ALL_BUT_ONE, ids=[f"without {name}" for name in PLUGINS])
async def test_each_blocked_in_turn(selection, servers):
    (blocked,) = set(PLUGINS) - set(selection)

    with only(selection):
        app = Chicory(broker=servers.address(offered("brokers", selection)[0]))
        theirs = [name for name in offered("brokers", (blocked,)) if name != "memory"]
        for name in theirs:
            with pytest.raises(PluginNotFoundError, match=f"take back no:{blocked}"):
                Chicory(broker=name)

    assert states_of(app) == {**dict.fromkeys((*selection, *BUILTINS), "active"), blocked: "blocked"}
    await run_tasks(app)


@pytest.mark.parametrize("selection", [PLUGINS, *ALL_BUT_ONE, *PAIRS], ids=named)
def test_the_pipeline_has_the_layers_of_those_that_are_there_in_order(selection):
    words = [word for name in PLUGINS if name not in selection for word in ("--plugin", f"no:{name}")]

    done = CliRunner().invoke(cli, ["plugins", "--pipeline", "--json", *words], catch_exceptions=False)

    layers = json.loads(done.output)
    assert {layer["plugin"] for layer in layers} <= {*selection, *BUILTINS, "core"}
    for around in ("publish", "execute"):
        places = [(layer["stage"], layer["layer"]) for layer in layers if layer["around"] == around]
        assert places == sorted(places)
    assert [layer["layer"] for layer in layers if layer["plugin"] == "core"] == ["unknown_task", "admit", "decode", "call"]
