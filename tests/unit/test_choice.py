"""Which broker and which backend an app works with: one test per rule of precedence."""

from typing import NamedTuple

import pytest
from structlog.testing import capture_logs

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


def choose(broker=UNSET, backend=UNSET, *, launch=Launch(), **settings):
    """What comes of the arguments of an app, the settings of its configuration, and the command line."""
    config = ChicoryConfig(**settings)
    plugins = Plugins((*config.plugins, *launch.plugins), builtins={**BUILTINS, **FAKES})
    return Choice(plugins, config, launch, FakeClock()).make(broker, backend)


def broker_of(chosen):
    return (chosen.broker.name, chosen.broker.url)


def backend_of(chosen):
    return chosen.backend if chosen.backend is None else (chosen.backend.name, chosen.backend.url)


@pytest.fixture
def red_sections(site):
    names = ("RedBrokerConfig", "RedBackendConfig")
    site.install("redsections", SECTIONS, entry_points={"chicory.config": {name: f"redsections:{name}" for name in names}})
    from chicory.config import RedBackendConfig, RedBrokerConfig

    return RedBrokerConfig(), RedBackendConfig()


# --- the broker, from the lowest rule to the highest -----------------------------------------------


def test_without_any_source_the_embedded_default_is_asked_for():
    with pytest.raises(PluginNotFoundError) as missing:
        choose()

    assert str(missing.value) == "no installed plugin offers the URL scheme 'sqlite': run `pip install chicory-sqlite`"


def test_the_environment_beats_the_default(monkeypatch):
    monkeypatch.setenv("CHICORY_BROKER_URL", "red://env")

    assert broker_of(choose()) == ("red", "red://env")


def test_a_url_in_the_config_object_beats_the_environment(monkeypatch):
    monkeypatch.setenv("CHICORY_BROKER_URL", "red://env")

    assert broker_of(choose(broker=UNSET, **{"broker_config": None} if False else {}) if False else _with_url("blue://config")) == (
        "blue",
        "blue://config",
    )


def _with_url(url):
    config = ChicoryConfig(broker=BrokerConfig(url=url))
    return Choice(Plugins((), builtins={**BUILTINS, **FAKES}), config, Launch(), FakeClock()).make(UNSET, UNSET)
