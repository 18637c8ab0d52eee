"""Which broker and backend an app works with where the embedded default is installed."""

import pytest

from chicory import BackendConfig, BackendType, BrokerConfig, BrokerType, Chicory, ChicoryConfig
from chicory.config import SqliteBackendConfig, SqliteBrokerConfig
from chicory.errors import ConfigurationError, PluginNotFoundError
from chicory.launch import Launch, launching
from chicory.memory import MemoryBackend, MemoryBroker
from chicory_sqlite import File, SqliteBackend, SqliteBroker

pytestmark = pytest.mark.usefixtures("no_settings")


@pytest.fixture
def at(no_settings):
    """The address of a file in the working directory."""
    return lambda name: f"sqlite:///{no_settings.resolve()}/{name}"


def addresses(app):
    return app.broker.address, None if app.backend is None else app.backend.address


def test_without_any_source_it_is_one_file_below_the_working_directory(at, no_settings):
    app = Chicory()

    assert addresses(app) == (at(".chicory/chicory.db"), at(".chicory/chicory.db"))
    assert list(no_settings.iterdir()) == []


@pytest.mark.parametrize(
    ("broker", "file"),
    [
        (BrokerType.SQLITE, ".chicory/chicory.db"),
        ("sqlite", ".chicory/chicory.db"),
        ("sqlite:///some.db", "some.db"),
        ("sqlite:///deep/er/some%20file.db", "deep/er/some file.db"),
    ],
    ids=["enum", "name", "url", "quoted url"],
)
def test_every_way_to_name_it_brings_its_backend_at_the_same_file(broker, file, at):
    assert addresses(Chicory(broker=broker)) == (at(file), at(file))


def test_an_absolute_path_has_four_slashes(tmp_path):
    app = Chicory(broker=f"sqlite:///{tmp_path}/some.db")

    assert app.broker.address == f"sqlite:///{tmp_path.resolve()}/some.db"


def test_an_object_brings_its_backend_at_the_same_file(no_settings, at):
    from chicory.clock import SYSTEM_CLOCK

    file = File(path=no_settings / "mine.db", durability="normal", lock_seconds=5.0, clock=SYSTEM_CLOCK)

    app = Chicory(broker=SqliteBroker(file))

    assert addresses(app) == (at("mine.db"), at("mine.db"))


@pytest.mark.parametrize("backend", [BackendType.SQLITE, "sqlite", "sqlite:///results.db"], ids=["enum", "name", "url"])
def test_a_backend_may_stand_beside_another_broker(backend, at):
    app = Chicory(broker="memory", backend=backend)

    assert type(app.broker_twin()) is MemoryBroker
    assert app.backend.address == at("results.db" if "://" in backend else ".chicory/chicory.db")


def test_another_backend_may_stand_beside_the_broker(at):
    app = Chicory(broker="sqlite:///messages.db", backend="memory")

    assert app.broker.address == at("messages.db")
    assert type(app.backend_twin()) is MemoryBackend


def test_no_backend_said_explicitly_stays_none(monkeypatch):
    monkeypatch.setenv("CHICORY_BACKEND_URL", "sqlite:///results.db")

    assert Chicory(broker="sqlite", backend=None).backend is None


def test_the_environment_names_both(monkeypatch, at):
    monkeypatch.setenv("CHICORY_BROKER_URL", "sqlite:///messages.db")
    monkeypatch.setenv("CHICORY_BACKEND_URL", "sqlite:///results.db")

    assert addresses(Chicory()) == (at("messages.db"), at("results.db"))


def test_a_path_in_the_environment_moves_the_named_broker_and_its_backend(monkeypatch, at):
    monkeypatch.setenv("CHICORY_BROKER_SQLITE_PATH", "messages.db")

    assert addresses(Chicory(broker="sqlite")) == (at("messages.db"), at("messages.db"))


def test_a_path_in_the_environment_moves_the_embedded_default(monkeypatch, at):
    monkeypatch.setenv("CHICORY_BROKER_SQLITE_PATH", "messages.db")

    assert addresses(Chicory()) == (at("messages.db"), at("messages.db"))


def test_a_path_of_its_own_moves_the_backend_alone(monkeypatch, at):
    monkeypatch.setenv("CHICORY_BACKEND_SQLITE_PATH", "results.db")

    assert addresses(Chicory(broker="sqlite", backend="sqlite")) == (at(".chicory/chicory.db"), at("results.db"))


def test_a_section_of_the_broker_alone_is_the_choice(at):
    config = ChicoryConfig(broker=BrokerConfig(sqlite=SqliteBrokerConfig(path="messages.db")))

    assert addresses(Chicory(config=config)) == (at("messages.db"), at("messages.db"))


def test_sections_of_both_are_the_choice(at):
    config = ChicoryConfig(
        broker=BrokerConfig(sqlite=SqliteBrokerConfig(path="messages.db")),
        backend=BackendConfig(sqlite=SqliteBackendConfig(path="results.db")),
    )

    assert addresses(Chicory(config=config)) == (at("messages.db"), at("results.db"))


def test_a_plugin_asked_for_by_name_replaces_broker_and_backend(at):
    with launching(Launch(plugins=("sqlite",))):
        app = Chicory(broker="memory", backend="memory")

    assert addresses(app) == (at(".chicory/chicory.db"), at(".chicory/chicory.db"))


def test_a_plugin_asked_for_in_the_environment_does_the_same(monkeypatch, at):
    monkeypatch.setenv("CHICORY_PLUGINS", "sqlite")
    monkeypatch.setenv("CHICORY_BROKER_URL", "sqlite:///env.db")

    assert addresses(Chicory(broker="memory")) == (at("env.db"), at("env.db"))


def test_a_plugin_asked_for_by_name_is_at_its_own_section_where_the_url_is_of_another(monkeypatch, at):
    monkeypatch.setenv("CHICORY_BROKER_URL", "memory://")

    with launching(Launch(plugins=("sqlite",))):
        app = Chicory()

    assert app.broker.address == at(".chicory/chicory.db")


def test_memory_asked_for_by_name_replaces_the_file():
    with launching(Launch(plugins=("memory",))):
        app = Chicory(broker="sqlite:///some.db")

    assert addresses(app) == ("memory://", "memory://")


def test_the_command_line_beats_everything(monkeypatch, at):
    monkeypatch.setenv("CHICORY_PLUGINS", "memory")

    with launching(Launch(broker="sqlite:///cli.db", backend="sqlite:///results.db")):
        app = Chicory(broker="memory", backend=None)

    assert addresses(app) == (at("cli.db"), at("results.db"))


def test_a_blocked_plugin_is_not_used():
    with launching(Launch(plugins=("no:sqlite",))), pytest.raises(PluginNotFoundError):
        Chicory()


def test_without_autoload_a_url_still_finds_its_plugin(monkeypatch, at):
    monkeypatch.setenv("CHICORY_DISABLE_PLUGIN_AUTOLOAD", "1")

    assert addresses(Chicory(broker="sqlite:///some.db")) == (at("some.db"), at("some.db"))


@pytest.mark.parametrize("url", ["sqlite://host/some.db", "sqlite://", "sqlite:///"], ids=["host", "nothing", "no file"])
def test_a_url_without_file_says_how_to_write_it(url):
    with pytest.raises(ConfigurationError, match=r"write sqlite:///relative/path\.db, or sqlite:////absolute/path\.db"):
        Chicory(broker=url)


def test_broker_and_backend_at_one_file_are_joined():
    app = Chicory()

    connection = app.connection()

    assert (type(connection.broker), type(connection.backend)) == (SqliteBroker, SqliteBackend)
    assert connection.joined.tracks_pending
