"""The sections that the sqlite plugin contributes: where their values come from, and how they reach the file."""

import warnings
from itertools import pairwise
from pathlib import Path

import pytest

from chicory import BackendConfig, BrokerConfig, Chicory, ChicoryConfig, WorkerConfig
from chicory.config import SqliteBackendConfig, SqliteBrokerConfig, find_section
from chicory.errors import ConfigurationError
from chicory.settings import ConfigurationWarning

pytestmark = pytest.mark.usefixtures("no_settings")

SECTIONS = {"broker": SqliteBrokerConfig, "backend": SqliteBackendConfig}
SOURCES = ["config object", "environment", ".env", "pyproject.toml", "default"]


def test_the_sections_are_found_by_their_names():
    assert find_section("SqliteBrokerConfig") is SqliteBrokerConfig
    assert find_section("sqlitebackendconfig") is SqliteBackendConfig


@pytest.mark.parametrize("kind", SECTIONS)
@pytest.mark.parametrize(("higher", "lower"), list(pairwise(SOURCES)), ids=lambda name: name)
def test_the_higher_source_of_a_section_wins(higher, lower, kind, no_settings, monkeypatch):
    used = {higher, lower}
    variable = f"CHICORY_{kind.upper()}_SQLITE_PATH"
    if "environment" in used:
        monkeypatch.setenv(variable, "environment.db")
    if ".env" in used:
        (no_settings / ".env").write_text(f"{variable}=dotenv.db\n")
    if "pyproject.toml" in used:
        (no_settings / "pyproject.toml").write_text(f'[tool.chicory.{kind}.sqlite]\npath = "pyproject.db"\n')
    given = {"sqlite": SECTIONS[kind](path="config.db")} if "config object" in used else {}
    config = BrokerConfig(**given) if kind == "broker" else BackendConfig(**given)

    path = config.sqlite.path

    names = {
        "config object": "config.db",
        "environment": "environment.db",
        ".env": "dotenv.db",
        "pyproject.toml": "pyproject.db",
    }
    assert path == Path(names.get(higher, ".chicory/chicory.db"))


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [("path", "a/b.db", Path("a/b.db")), ("durability", "normal", "normal"), ("lock_seconds", "2.5", 2.5)],
    ids=["path", "durability", "lock_seconds"],
)
@pytest.mark.parametrize("kind", SECTIONS)
def test_every_setting_has_its_variable(kind, field, text, value, monkeypatch):
    monkeypatch.setenv(f"CHICORY_{kind.upper()}_SQLITE_{field.upper()}", text)

    section = getattr(ChicoryConfig(), kind).sqlite

    assert getattr(section, field) == value


def test_no_setting_is_missing_on_this_page():
    assert set(SqliteBrokerConfig.model_fields) == {"path", "durability", "lock_seconds"}
    assert set(SqliteBackendConfig.model_fields) == {"path", "durability", "lock_seconds", "result_ttl"}


def test_the_result_ttl_of_the_backend_has_its_variable(monkeypatch):
    monkeypatch.setenv("CHICORY_BACKEND_SQLITE_RESULT_TTL", "60")

    assert BackendConfig().sqlite.result_ttl == 60


def test_the_whole_configuration_of_the_contract_can_be_written_down(no_settings):
    config = ChicoryConfig(
        broker=BrokerConfig(sqlite=SqliteBrokerConfig(path="messages.db")),
        backend=BackendConfig(sqlite=SqliteBackendConfig(path="results.db")),
        worker=WorkerConfig(concurrency=32, queue="default", use_dead_letter_queue=True),
    )

    app = Chicory(config=config)

    assert app.broker.address == f"sqlite:///{no_settings.resolve()}/messages.db"
    assert app.backend.address == f"sqlite:///{no_settings.resolve()}/results.db"


def test_a_misspelt_variable_of_the_plugin_is_noticed(monkeypatch):
    monkeypatch.setenv("CHICORY_BROKER_SQLITE_PAHT", "a.db")

    with pytest.warns(ConfigurationWarning, match="did you mean CHICORY_BROKER_SQLITE_PATH?"):
        Chicory()


@pytest.mark.parametrize("broker", ["sqlite", "memory"], ids=["in use", "not in use"])
def test_a_variable_of_the_plugin_that_is_right_does_not_warn(broker, monkeypatch):
    monkeypatch.setenv("CHICORY_BROKER_SQLITE_PATH", "a.db")
    monkeypatch.setenv("CHICORY_BACKEND_SQLITE_RESULT_TTL", "60")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Chicory(broker=broker)


def test_a_config_object_may_be_used_for_two_apps(no_settings):
    config = ChicoryConfig()

    first = Chicory(broker="sqlite:///first.db", config=config)
    second = Chicory(broker="memory", config=config)

    assert config.broker.given == ()
    assert config.backend.given == ()
    assert (first.backend.address, second.backend.address) == (f"sqlite:///{no_settings.resolve()}/first.db", "memory://")


@pytest.mark.parametrize(
    ("name", "value"),
    [("CHICORY_BROKER_SQLITE_DURABILITY", "hunter2"), ("CHICORY_BROKER_SQLITE_LOCK_SECONDS", "-1")],
    ids=["durability", "lock"],
)
def test_a_value_of_a_section_that_does_not_fit_names_its_variable(name, value, monkeypatch):
    monkeypatch.setenv(name, value)

    with pytest.raises(ConfigurationError) as refused:
        Chicory(broker="sqlite")

    assert name in str(refused.value)
    assert value not in str(refused.value)


def test_a_query_of_the_url_sets_the_rest(no_settings):
    app = Chicory(broker="sqlite:///a.db?durability=normal&lock_seconds=2")

    assert app.broker_twin().file.durability == "normal"
    assert app.broker_twin().file.lock_seconds == 2


@pytest.mark.parametrize("query", ["durability=hunter2", "lock_seconds=soon", "colour=red"], ids=["value", "number", "name"])
def test_a_query_of_the_url_that_does_not_fit_is_refused(query):
    with pytest.raises(ConfigurationError) as refused:
        Chicory(broker=f"sqlite:///a.db?{query}")

    assert query.partition("=")[0] in str(refused.value)
