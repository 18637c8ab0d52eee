"""The sections that plugins contribute: found by their names, never changed, never showing a password."""

import importlib

import pytest

from chicory import BackendConfig, BrokerConfig, ChicoryConfig
from chicory.config import find_section, install_hint
from chicory.errors import ConfigurationError, PluginNotFoundError

pytestmark = pytest.mark.usefixtures("no_settings", "site")

SECTION = """
    from chicory.plugin import BackendSection, BrokerSection, settings_from
    from pydantic import SecretStr

    class FakeBrokerConfig(BrokerSection):
        model_config = settings_from("broker", "fake")
        host: str = "localhost"
        password: SecretStr | None = None

    class FakeBackendConfig(BackendSection):
        model_config = settings_from("backend", "fake")
        host: str = "localhost"
"""


@pytest.fixture
def fake(site):
    names = ("FakeBrokerConfig", "FakeBackendConfig")
    site.install("fakesections", SECTION, entry_points={"chicory.config": {name: f"fakesections:{name}" for name in names}})
    return importlib.import_module("fakesections")


def test_a_section_is_imported_from_the_plugin_that_contributes_it(fake):
    from chicory.config import FakeBrokerConfig

    assert FakeBrokerConfig is fake.FakeBrokerConfig
    assert find_section("fakebackendconfig") is fake.FakeBackendConfig


def test_a_section_that_nobody_gave_comes_from_the_environment(fake, monkeypatch):
    monkeypatch.setenv("CHICORY_BROKER_FAKE_HOST", "somewhere")

    assert BrokerConfig().fake.host == "somewhere"


def test_a_section_that_was_given_beats_the_environment(fake, monkeypatch):
    monkeypatch.setenv("CHICORY_BROKER_FAKE_HOST", "somewhere")

    config = BrokerConfig(fake=fake.FakeBrokerConfig(host="here"))

    assert (config.fake.host, config.given) == ("here", ("fake",))


def test_reading_a_section_does_not_change_the_config(fake):
    config = ChicoryConfig()
    before = repr(config)

    assert config.broker.fake.host == config.backend.fake.host == "localhost"

    assert (config.broker.given, config.backend.given) == ((), ())
    assert repr(config) == before


def test_passwords_are_not_shown(fake):
    section = fake.FakeBrokerConfig(password="hunter2")

    shown = repr(ChicoryConfig(broker=BrokerConfig(url="fake://me:hunter2@host", fake=section)))

    assert "hunter2" not in shown
    assert "fake://me:***@host" in shown


def test_a_section_of_another_kind_is_refused(fake):
    with pytest.raises(ConfigurationError, match=r"BrokerConfig\(fake=...\) takes a FakeBrokerConfig, not a FakeBackendConfig"):
        BrokerConfig(fake=fake.FakeBackendConfig())


@pytest.mark.parametrize("name", ["RedisBrokerConfig", "RedisBackendConfig"])
def test_a_section_whose_plugin_is_missing_says_what_to_install(name):
    with pytest.raises(PluginNotFoundError, match="run `pip install chicory-redis`"):
        getattr(importlib.import_module("chicory.config"), name)
    kind = BrokerConfig if "Broker" in name else BackendConfig
    with pytest.raises(PluginNotFoundError, match="run `pip install chicory-redis`"):
        assert kind().redis


def test_importing_a_section_whose_plugin_is_missing_says_what_to_install():
    with pytest.raises(PluginNotFoundError, match="run `pip install chicory-redis`"):
        from chicory.config import RedisBrokerConfig  # noqa: F401


def test_a_name_that_is_no_section_is_missing_as_usual():
    with pytest.raises(ImportError):
        from chicory.config import nonsense  # noqa: F401


@pytest.mark.parametrize(
    ("name", "hint"), [("nats", "chicory-nats"), ("dlq", "chicory-dlq"), ("kafka", None)], ids=["ours", "ours too", "not ours"]
)
def test_we_know_what_to_install_for_plugins_of_ours(name, hint):
    assert install_hint(name) == hint
