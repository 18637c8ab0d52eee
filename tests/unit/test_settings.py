"""Groups of settings: their sources, masked passwords, errors without values, and misspelt variables."""

import warnings
from itertools import pairwise
from typing import ClassVar

import pydantic
import pytest
from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from chicory.errors import ConfigurationError
from chicory.settings import (
    BackendSection,
    BrokerSection,
    ConfigurationWarning,
    PluginSettings,
    mask,
    readable,
    settings_from,
    variables_of,
    warn_of_unknown,
)

pytestmark = pytest.mark.usefixtures("no_settings")


class Kafka(BrokerSection):
    model_config: ClassVar[SettingsConfigDict] = settings_from("broker", "kafka")

    host: str = "localhost"
    port: int = Field(default=9092, gt=0)
    password: SecretStr | None = None


class Otel(PluginSettings):
    model_config: ClassVar[SettingsConfigDict] = settings_from("otel")

    endpoint: str = "default"


SOURCES = ["argument", "environment", ".env", "pyproject.toml", "default"]


def say(source, folder, monkeypatch):
    """Have *source* name itself as the endpoint; returns the arguments for the settings."""
    if source == "environment":
        monkeypatch.setenv("CHICORY_OTEL_ENDPOINT", source)
    elif source == ".env":
        (folder / ".env").write_text(f"CHICORY_OTEL_ENDPOINT={source}\n")
    elif source == "pyproject.toml":
        (folder / "pyproject.toml").write_text(f'[tool.chicory.otel]\nendpoint = "{source}"\n')
    return {"endpoint": source} if source == "argument" else {}


@pytest.mark.parametrize(("higher", "lower"), list(pairwise(SOURCES)), ids=lambda name: name)
def test_a_higher_source_beats_the_next(higher, lower, no_settings, monkeypatch):
    arguments = say(higher, no_settings, monkeypatch) | say(lower, no_settings, monkeypatch)

    assert Otel(**arguments).endpoint == higher


def test_a_nested_group_has_its_own_table_and_prefix(no_settings, monkeypatch):
    (no_settings / "pyproject.toml").write_text('[tool.chicory.broker.kafka]\nhost = "a"\nport = 1\n')
    monkeypatch.setenv("CHICORY_BROKER_KAFKA_PORT", "2")

    section = Kafka()

    assert (section.host, section.port) == ("a", 2)


def test_settings_do_not_change():
    with pytest.raises(pydantic.ValidationError):
        Kafka().host = "other"


def test_a_password_is_never_shown(monkeypatch):
    monkeypatch.setenv("CHICORY_BROKER_KAFKA_PASSWORD", "hunter2")

    section = Kafka()

    assert section.password.get_secret_value() == "hunter2"
    assert "hunter2" not in f"{section!r} {section} {section.model_dump()}"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("hots", "Kafka has no setting 'hots': did you mean 'host'?"),
        ("zzz", "Kafka has no setting 'zzz': it has host, port, password"),
    ],
    ids=["near", "far"],
)
def test_an_argument_that_is_no_setting_is_refused(name, text):
    with pytest.raises(ConfigurationError) as refused:
        Kafka(**{name: 1})

    assert str(refused.value) == text


def test_a_value_that_does_not_fit_is_not_told():
    with pytest.raises(pydantic.ValidationError) as refused:
        Kafka(port="hunter2")

    assert "hunter2" not in f"{refused.value} {readable(refused.value)}"


def test_an_error_names_the_variable_in_one_line(monkeypatch):
    monkeypatch.setenv("CHICORY_BROKER_KAFKA_PORT", "-1")
    with pytest.raises(pydantic.ValidationError) as refused:
        Kafka()

    text = readable(refused.value)

    assert text == "port (CHICORY_BROKER_KAFKA_PORT): input should be greater than 0"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://me:secret@host:6379/0", "redis://me:***@host:6379/0"),
        ("redis://:secret@host/0?x=1", "redis://:***@host/0?x=1"),
        ("redis://me:s@cret@host/0", "redis://me:***@host/0"),
        ("redis://me@host/0", "redis://me@host/0"),
        ("redis://host:6379", "redis://host:6379"),
        ("sqlite:///relative.db", "sqlite:///relative.db"),
        ("sqlite:////absolute.db", "sqlite:////absolute.db"),
        ("memory://", "memory://"),
        ("redis://me:secret@[::1]:6379/0", "redis://me:***@[::1]:6379/0"),
    ],
    ids=["user", "no user", "at sign in it", "no password", "host", "file", "absolute file", "memory", "ipv6"],
)
def test_a_url_is_shown_without_its_password(url, shown):
    assert mask(url) == shown


def test_a_backend_section_may_say_how_long_results_are_kept(monkeypatch):
    class Store(BackendSection):
        model_config: ClassVar[SettingsConfigDict] = settings_from("backend", "store")

    monkeypatch.setenv("CHICORY_BACKEND_STORE_RESULT_TTL", "60")

    assert Store().result_ttl == 60
    with pytest.raises(pydantic.ValidationError):
        Store(result_ttl=0)


# --- misspelt variables --------------------------------------------------------------------------

KNOWN = {"CHICORY_PLUGINS", "CHICORY_OTEL_ENDPOINT"}


def test_the_variables_of_a_group_are_known_by_its_fields():
    assert variables_of(Otel) == {"CHICORY_OTEL_ENDPOINT"}
    assert "CHICORY_BROKER_KAFKA_PASSWORD" in variables_of(Kafka)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("CHICORY_PLUGIN", "CHICORY_PLUGIN is not a setting of chicory: did you mean CHICORY_PLUGINS?"),
        ("CHICORY_OTEL_ENDPIONT", "did you mean CHICORY_OTEL_ENDPOINT?"),
        ("chicory_plugin", "CHICORY_PLUGIN is not a setting of chicory: did you mean CHICORY_PLUGINS?"),
        ("CHICORY_", "CHICORY_ is not a setting of chicory"),
        ("CHICORY_QQQQQQQQQQQQQQQQQQQQQQQQ", "no installed plugin reads it"),
    ],
    ids=["near", "near, of a plugin", "in lower case", "nothing behind it", "far"],
)
@pytest.mark.parametrize("source", ["environment", ".env", "export in .env"])
def test_a_misspelt_variable_is_noticed(name, text, source, no_settings):
    environ = {name: "1"} if source == "environment" else {}
    if source != "environment":
        (no_settings / ".env").write_text(f"# CHICORY_NOTHING=1\n\n{'export ' if 'export' in source else ''}{name} = 1\n")

    with pytest.warns(ConfigurationWarning) as noticed:
        warn_of_unknown(KNOWN, environ=environ)

    (warning,) = noticed
    assert text in str(warning.message)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"CHICORY_PLUGINS": "nats"},
        {"chicory_plugins": "nats"},
        {"MY_CHICORY_PLUGIN": "1"},
        {"CHICORYPLUGINS": "1"},
        {"CHICORY_TEST_REDIS_SERVER": "redis-server"},
    ],
    ids=["nothing", "known", "known in lower case", "of another program", "of another name", "of tests"],
)
def test_variables_that_are_known_or_not_ours_pass(environ):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_unknown(KNOWN, environ=environ)


@pytest.mark.parametrize(
    "content",
    [b"\xff\xfe", b"# CHICORY_NOTHING=1\n", b"CHICORY_NOTHING\n", b"OTHER=CHICORY_NOTHING=1\n"],
    ids=["binary", "comment", "no value", "in a value"],
)
def test_an_env_file_without_variables_of_ours_passes(content, no_settings):
    (no_settings / ".env").write_bytes(content)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_unknown(KNOWN, environ={})


def test_the_environment_of_the_process_is_looked_at_by_default(monkeypatch):
    monkeypatch.setenv("CHICORY_PLUGIN", "nats")

    with pytest.warns(ConfigurationWarning, match="CHICORY_PLUGINS"):
        warn_of_unknown(KNOWN)
