"""Which broker and which backend an app works with: one test per rule of precedence."""

from typing import NamedTuple

import pytest

from chicory import BackendConfig, BackendType, BrokerConfig, BrokerType, Chicory, ChicoryConfig
from chicory.builtin import BUILTINS
from chicory.choice import UNSET, Choice
from chicory.errors import ConfigurationError, PluginNotFoundError
from chicory.launch import Launch
from chicory.memory import MemoryBackend, MemoryBroker
from chicory.plugin import BackendSpec, BrokerSpec, hookimpl
from chicory.plugins import Plugins
from chicory.testing import FakeClock

pytestmark = pytest.mark.usefixtures("no_settings", "site")


class Made(NamedTuple):
    """What a fake plugin builds: enough to see what was asked of it."""

    kind: str
    name: str
    url: str | None
    beside: object = None


class FakePlugin:
    """Offers a broker and a backend, each called *name*, with a scheme called so."""

    def __init__(self, name, *, backend=True):
        self.name, self.has_backend = name, backend

    @hookimpl
    def chicory_register_brokers(self):
        return [BrokerSpec(name=self.name, schemes=(self.name,), build=lambda p: Made("broker", self.name, p.url))]

    @hookimpl
    def chicory_register_backends(self):
        def build(place):
            return Made("backend", self.name, place.url, place.broker.name)

        return [BackendSpec(name=self.name, schemes=(self.name,), build=build)] if self.has_backend else []


FAKES = {"red": FakePlugin("red"), "blue": FakePlugin("blue"), "lone": FakePlugin("lone", backend=False)}
SECTIONS = """
    from chicory.plugin import BackendSection, BrokerSection, settings_from

    class RedBrokerConfig(BrokerSection):
        model_config = settings_from("broker", "red")

    class RedBackendConfig(BackendSection):
        model_config = settings_from("backend", "red")
"""


NOTHING_SAID = Launch()


def choose(broker=UNSET, backend=UNSET, *, config=None, launch=NOTHING_SAID):
    """What comes of the arguments of an app, its config object, and the command line."""
    config = config or ChicoryConfig()
    plugins = Plugins((*config.plugins, *launch.plugins), builtins={**BUILTINS, **FAKES})
    return Choice(plugins, config, launch, FakeClock()).make(broker, backend)


def broker_of(chosen):
    return (chosen.broker.name, chosen.broker.url)


def backend_of(chosen):
    return None if chosen.backend is None else (chosen.backend.name, chosen.backend.url)


@pytest.fixture
def red(site):
    """The config module, with the sections of the red plugin."""
    names = ("RedBrokerConfig", "RedBackendConfig")
    site.install("redsections", SECTIONS, entry_points={"chicory.config": {name: f"redsections:{name}" for name in names}})
    import chicory.config

    return chicory.config


# --- the broker, from the lowest rule to the highest -----------------------------------------------


def test_without_any_source_the_embedded_default_is_asked_for():
    with pytest.raises(PluginNotFoundError) as missing:
        choose()

    assert (missing.value.name, missing.value.install) == ("sqlite", "chicory-sqlite")


def test_the_environment_beats_the_default(monkeypatch):
    monkeypatch.setenv("CHICORY_BROKER_URL", "red://env")

    assert broker_of(choose()) == ("red", "red://env")


def test_a_section_in_the_config_object_beats_the_environment(red, monkeypatch):
    monkeypatch.setenv("CHICORY_BROKER_URL", "blue://env")

    chosen = choose(config=ChicoryConfig(broker=BrokerConfig(red=red.RedBrokerConfig())))

    assert broker_of(chosen) == ("red", None)


def test_a_url_in_the_config_object_beats_the_environment(monkeypatch):
    monkeypatch.setenv("CHICORY_BROKER_URL", "blue://env")

    chosen = choose(config=ChicoryConfig(broker=BrokerConfig(url="red://config")))

    assert broker_of(chosen) == ("red", "red://config")


@pytest.mark.parametrize(
    ("argument", "made"),
    [("red", ("red", None)), ("red://argument", ("red", "red://argument"))],
    ids=["name", "url"],
)
def test_an_argument_beats_the_config_object(argument, made):
    chosen = choose(argument, config=ChicoryConfig(broker=BrokerConfig(url="blue://config")))

    assert broker_of(chosen) == made


def test_an_object_beats_the_config_object():
    given = MemoryBroker()

    chosen = choose(given, config=ChicoryConfig(broker=BrokerConfig(url="blue://config")))

    assert chosen.broker is given


@pytest.mark.parametrize("by", ["command line", "environment", "config object"])
@pytest.mark.parametrize(
    "argument", ["blue", "blue://argument", MemoryBroker(), UNSET], ids=["name", "url", "object", "nothing"]
)
def test_the_one_broker_of_a_plugin_asked_for_by_name_beats_the_argument(by, argument, monkeypatch):
    if by == "environment":
        monkeypatch.setenv("CHICORY_PLUGINS", "red")
    config = ChicoryConfig(plugins=["red"]) if by == "config object" else None

    chosen = choose(argument, config=config, launch=Launch(plugins=("red",) if by == "command line" else ()))

    assert broker_of(chosen) == ("red", None)


def test_a_plugin_on_the_command_line_beats_one_in_the_environment(monkeypatch):
    monkeypatch.setenv("CHICORY_PLUGINS", "blue")

    assert broker_of(choose(launch=Launch(plugins=("red",)))) == ("red", None)


@pytest.mark.parametrize("names", [("red", "blue"), ("json",), ("no:red",)], ids=["two brokers", "no broker", "blocked"])
def test_plugins_asked_for_that_leave_no_one_broker_decide_nothing(names):
    chosen = choose("lone", launch=Launch(plugins=names))

    assert broker_of(chosen) == ("lone", None)


def test_an_override_of_the_argument_is_logged(caplog):
    caplog.set_level("INFO", logger="chicory.config")

    choose("blue", "blue", launch=Launch(plugins=("red",)))

    assert caplog.messages == ["event=broker_overridden by_plugin=red", "event=backend_overridden by_plugin=red"]


@pytest.mark.parametrize(("text", "made"), [("red", ("red", None)), ("red://cli", ("red", "red://cli"))], ids=["name", "url"])
def test_a_broker_on_the_command_line_beats_everything(text, made, monkeypatch):
    monkeypatch.setenv("CHICORY_PLUGINS", "blue")

    chosen = choose("lone", config=ChicoryConfig(broker=BrokerConfig(url="blue://config")), launch=Launch(broker=text))

    assert broker_of(chosen) == made


# --- where a named broker is -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "made"), [("red://env", ("red", "red://env")), ("blue://env", ("red", None))], ids=["fits", "does not fit"]
)
@pytest.mark.parametrize("by", ["argument", "plugin"])
def test_a_named_broker_is_at_the_url_whose_scheme_fits(url, made, by, monkeypatch):
    monkeypatch.setenv("CHICORY_BROKER_URL", url)

    chosen = choose("red") if by == "argument" else choose(launch=Launch(plugins=("red",)))

    assert broker_of(chosen) == made


@pytest.mark.parametrize("member", [BrokerType.MEMORY, "memory", "memory://"], ids=["enum", "name", "url"])
def test_every_way_to_name_a_broker_means_the_same(member):
    chosen = choose(member)

    assert (type(chosen.broker), chosen.plugin) == (MemoryBroker, "memory")


@pytest.mark.parametrize(
    ("argument", "text"),
    [
        (BrokerType.NATS, "no installed plugin offers the broker 'nats': run `pip install chicory-nats`"),
        ("nats://host", "no installed plugin offers the URL scheme 'nats': run `pip install chicory-nats`"),
        ("rediss://host", "no installed plugin offers the URL scheme 'rediss': run `pip install chicory-redis`"),
        ("rde", "no installed plugin offers the broker 'rde': did you mean 'red'?"),
        ("kafka://host", "no installed plugin offers the URL scheme 'kafka': installed are blue, lone, memory, red"),
    ],
    ids=["name of ours", "scheme of ours", "other scheme of ours", "misspelt", "unknown"],
)
def test_a_broker_that_nobody_offers_says_what_to_do(argument, text):
    with pytest.raises(PluginNotFoundError) as missing:
        choose(argument)

    assert str(missing.value) == text


@pytest.mark.parametrize(
    "argument", [42, object(), MemoryBackend(), MemoryBroker], ids=["number", "object", "backend", "class"]
)
def test_a_broker_of_another_kind_is_refused(argument):
    name = type(argument).__name__

    with pytest.raises(ConfigurationError) as refused:
        choose(argument)

    assert str(refused.value) == f"broker= takes a name, a URL or a broker object, and {name} is none of them"


# --- the backend -----------------------------------------------------------------------------------


def test_without_any_source_it_is_that_of_the_brokers_plugin_at_the_brokers_address():
    chosen = choose("red://here")

    assert backend_of(chosen) == ("red", "red://here")
    assert chosen.backend.beside == "red"


def test_a_broker_whose_plugin_offers_no_backend_has_none():
    assert choose("lone").backend is None


def test_a_broker_object_brings_the_backend_of_its_plugin():
    chosen = choose(MemoryBroker())

    assert chosen.backend.join(chosen.broker) is not None


def test_a_broker_and_a_backend_in_memory_are_one_store():
    chosen = choose("memory")

    assert chosen.backend.join(chosen.broker) is not None


def test_the_environment_beats_the_brokers_plugin(monkeypatch):
    monkeypatch.setenv("CHICORY_BACKEND_URL", "blue://env")

    assert backend_of(choose("red://here")) == ("blue", "blue://env")


def test_a_backend_section_in_the_config_object_beats_the_environment(red, monkeypatch):
    monkeypatch.setenv("CHICORY_BACKEND_URL", "blue://env")

    chosen = choose("blue", config=ChicoryConfig(backend=BackendConfig(red=red.RedBackendConfig())))

    assert backend_of(chosen) == ("red", None)


def test_a_backend_url_in_the_config_object_beats_the_environment(monkeypatch):
    monkeypatch.setenv("CHICORY_BACKEND_URL", "blue://env")

    chosen = choose("lone", config=ChicoryConfig(backend=BackendConfig(url="red://config")))

    assert backend_of(chosen) == ("red", "red://config")


@pytest.mark.parametrize(
    ("argument", "made"), [("red", ("red", None)), ("red://argument", ("red", "red://argument"))], ids=["name", "url"]
)
def test_a_backend_argument_beats_the_config_object(argument, made):
    chosen = choose("lone", argument, config=ChicoryConfig(backend=BackendConfig(url="blue://config")))

    assert backend_of(chosen) == made


def test_a_backend_object_beats_the_config_object():
    given = MemoryBackend()

    chosen = choose("lone", given, config=ChicoryConfig(backend=BackendConfig(url="blue://config")))

    assert chosen.backend is given


@pytest.mark.parametrize(
    "launch",
    [Launch(), Launch(plugins=("red",)), Launch(broker="red")],
    ids=["nothing else", "plugin", "broker on the command line"],
)
def test_no_backend_said_explicitly_stays_none(launch, monkeypatch):
    monkeypatch.setenv("CHICORY_BACKEND_URL", "blue://env")

    assert choose("blue", None, launch=launch).backend is None


@pytest.mark.parametrize("argument", ["blue", MemoryBackend(), UNSET], ids=["name", "object", "nothing"])
def test_the_one_backend_of_a_plugin_asked_for_by_name_beats_the_argument(argument):
    assert backend_of(choose("lone", argument, launch=Launch(plugins=("red",)))) == ("red", None)


def test_the_backend_of_a_plugin_asked_for_by_name_is_at_the_brokers_address(monkeypatch):
    monkeypatch.setenv("CHICORY_BROKER_URL", "red://env")

    assert backend_of(choose("blue", launch=Launch(plugins=("red",)))) == ("red", "red://env")


@pytest.mark.parametrize(
    ("text", "made"), [("red", ("red", None)), ("red://cli", ("red", "red://cli")), ("none", None)], ids=["name", "url", "none"]
)
@pytest.mark.parametrize("argument", ["blue", None], ids=["argument", "None"])
def test_a_backend_on_the_command_line_beats_everything(text, made, argument):
    chosen = choose("blue", argument, launch=Launch(backend=text, plugins=("blue",)))

    assert backend_of(chosen) == made


@pytest.mark.parametrize("member", [BackendType.MEMORY, "memory", "memory://"], ids=["enum", "name", "url"])
def test_every_way_to_name_a_backend_means_the_same(member):
    assert type(choose("lone", member).backend) is MemoryBackend


@pytest.mark.parametrize("argument", [42, MemoryBroker(), MemoryBackend], ids=["number", "broker", "class"])
def test_a_backend_of_another_kind_is_refused(argument):
    name = type(argument).__name__

    with pytest.raises(ConfigurationError) as refused:
        choose("red", argument)

    assert str(refused.value) == f"backend= takes a name, a URL, a backend object or None, and {name} is none of them"


@pytest.mark.parametrize(
    ("argument", "text"),
    [
        ("nats", "no installed plugin offers the backend 'nats': run `pip install chicory-nats`"),
        ("lone://host", "no installed plugin offers the backend 'lone': installed are blue, memory, red"),
    ],
    ids=["missing", "a plugin without backend"],
)
def test_a_backend_that_nobody_offers_says_what_to_do(argument, text):
    with pytest.raises(PluginNotFoundError) as missing:
        choose("red", argument)

    assert str(missing.value) == text


# --- the app ---------------------------------------------------------------------------------------


def test_a_plugin_blocked_by_name_offers_nothing():
    with pytest.raises(PluginNotFoundError):
        choose("red", launch=Launch(plugins=("no:red",)))


def test_an_app_works_with_what_was_chosen():
    app = Chicory(broker="memory", backend=None)

    assert (app.broker.address, app.backend) == ("memory://", None)


def test_two_apps_in_memory_share_nothing():
    first, second = choose("memory"), choose("memory")

    assert first.broker.store is not second.broker.store
