"""The configuration: which source wins, what every variable does, and what is refused."""

import os
import warnings
from itertools import pairwise

import pydantic
import pytest

from chicory import BackendConfig, BrokerConfig, Chicory, ChicoryConfig, Worker, WorkerConfig
from chicory.config import EMBEDDED_DEFAULT, known_variables
from chicory.errors import ConfigurationError
from chicory.launch import Launch, launching
from chicory.message import DeliveryMode, ValidationMode
from chicory.settings import ConfigurationWarning

pytestmark = pytest.mark.usefixtures("no_settings", "site")


def neighbours(sources):
    """One test for each source and the next lower one, and one for two that stand apart."""
    pairs = [*pairwise(sources), ("environment", "pyproject.toml")]
    return pytest.mark.parametrize(("higher", "lower"), pairs, ids=[f"{higher} over {lower}" for higher, lower in pairs])


# --- precedence ----------------------------------------------------------------------------------

WORKER_SOURCES = {
    "command line": 7.0,
    "argument": 6.0,
    "config object": 5.0,
    "environment": 4.0,
    ".env": 3.0,
    "pyproject.toml": 2.0,
    "default": 30.0,
}


@neighbours(list(WORKER_SOURCES))
def test_the_higher_source_of_a_worker_setting_wins(higher, lower, no_settings, monkeypatch):
    used = {source: WORKER_SOURCES[source] for source in (higher, lower)}
    if "environment" in used:
        monkeypatch.setenv("CHICORY_WORKER_SHUTDOWN_TIMEOUT", str(used["environment"]))
    if ".env" in used:
        (no_settings / ".env").write_text(f"CHICORY_WORKER_SHUTDOWN_TIMEOUT={used['.env']}\n")
    if "pyproject.toml" in used:
        (no_settings / "pyproject.toml").write_text(f"[tool.chicory.worker]\nshutdown_timeout = {used['pyproject.toml']}\n")
    config = None
    if "config object" in used:
        config = ChicoryConfig(worker=WorkerConfig(shutdown_timeout=used["config object"]))
    given = WorkerConfig(shutdown_timeout=used["argument"]) if "argument" in used else None
    launch = Launch(worker={"shutdown_timeout": used.get("command line")})

    with launching(launch):
        worker = Worker(Chicory(broker="memory", config=config), given)

    assert worker.config.shutdown_timeout == WORKER_SOURCES[higher]


APP_SOURCES = {
    "argument": ValidationMode.STRICT,
    "config object": ValidationMode.NONE,
    "environment": ValidationMode.OUTPUTS,
    ".env": ValidationMode.STRICT,
    "pyproject.toml": ValidationMode.NONE,
    "default": ValidationMode.INPUTS,
}


@neighbours(list(APP_SOURCES))
def test_the_higher_source_of_an_app_setting_wins(higher, lower, no_settings, monkeypatch):
    used = {source: APP_SOURCES[source] for source in (higher, lower)}
    if "environment" in used:
        monkeypatch.setenv("CHICORY_VALIDATION_MODE", used["environment"])
    if ".env" in used:
        (no_settings / ".env").write_text(f"CHICORY_VALIDATION_MODE={used['.env']}\n")
    if "pyproject.toml" in used:
        (no_settings / "pyproject.toml").write_text(f'[tool.chicory]\nvalidation_mode = "{used["pyproject.toml"]}"\n')
    config = ChicoryConfig(validation_mode=used["config object"]) if "config object" in used else None

    app = Chicory(broker="memory", config=config, validation_mode=used.get("argument"))

    assert app.config.validation_mode is APP_SOURCES[higher]


URL_SOURCES = ["argument", "environment", ".env", "pyproject.toml", "default"]


@pytest.mark.parametrize("kind", ["broker", "backend"])
@neighbours(URL_SOURCES)
def test_the_higher_source_of_an_address_wins(higher, lower, kind, no_settings, monkeypatch):
    used = {higher, lower}
    variable = f"CHICORY_{kind.upper()}_URL"
    if "environment" in used:
        monkeypatch.setenv(variable, "memory://environment")
    if ".env" in used:
        (no_settings / ".env").write_text(f"{variable}=memory://.env\n")
    if "pyproject.toml" in used:
        (no_settings / "pyproject.toml").write_text(f'[tool.chicory.{kind}]\nurl = "memory://pyproject.toml"\n')
    arguments = {"url": "memory://argument"} if "argument" in used else {}

    config = {"broker": BrokerConfig, "backend": BackendConfig}[kind](**arguments)

    assert config.url == (None if higher == "default" else f"memory://{higher}")


def test_a_file_may_name_broker_backend_and_worker(no_settings):
    (no_settings / "pyproject.toml").write_text(
        '[tool.chicory]\nresult_ttl = 60\n[tool.chicory.broker]\nurl = "memory://"\n'
        '[tool.chicory.backend]\nurl = "memory://"\n[tool.chicory.worker]\nqueue = ["a", "b"]\n'
    )

    app = Chicory()

    assert (app.broker.address, app.backend.address) == ("memory://", "memory://")
    assert (app.config.worker.queue, app.config.result_ttl) == ("a,b", 60)


def test_what_a_config_object_leaves_open_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("CHICORY_WORKER_QUEUE", "mail")

    config = ChicoryConfig(worker=WorkerConfig(concurrency=3))

    assert (config.worker.concurrency, config.worker.queue) == (3, "mail")


# --- every variable has an effect ----------------------------------------------------------------

WORKER_VARIABLES = {
    "concurrency": ("7", 7),
    "queue": ("high, low", "high, low"),
    "use_dead_letter_queue": ("true", True),
    "heartbeat_interval": ("2.5", 2.5),
    "heartbeat_ttl": ("45", 45),
    "cleanup_interval": ("60", 60),
    "stale_workers_timeout": ("90", 90),
    "shutdown_timeout": ("0", 0),
    "log_level": ("debug", "debug"),
    "log_format": ("json", "json"),
    "lease_seconds": ("12.5", 12.5),
    "max_deliveries": ("9", 9),
    "prefetch": ("0", 0),
    "threads": ("3", 3),
    "processes": ("3", 3),
    "process_recycle_tasks": ("7", 7),
    "process_memory_bytes": ("1000000000", 1_000_000_000),
    "block_report_seconds": ("0.5", 0.5),
    "stall_limit_seconds": ("inf", float("inf")),
    "health_address": ("[::1]:0", "[::1]:0"),
    "health_file": ("state-{pid}.json", "state-{pid}.json"),
    "unknown_task_seconds": ("1", 1),
}
APP_VARIABLES = {
    "plugins": ("json, memory,no:otel", ["json", "memory", "no:otel"]),
    "validation_mode": ("strict", ValidationMode.STRICT),
    "delivery_mode": ("at_most_once", DeliveryMode.AT_MOST_ONCE),
    "serializer": ("application/json", "application/json"),
    "accept_content": ("application/json,application/x", ["application/json", "application/x"]),
    "max_message_bytes": ("1000", 1000),
    "result_ttl": ("60.5", 60.5),
    "unknown_seconds": ("5", 5),
}


def of(table):
    return pytest.mark.parametrize(("field", "text", "value"), [(f, *row) for f, row in table.items()], ids=list(table))


@of(WORKER_VARIABLES)
def test_every_worker_setting_has_its_variable(field, text, value, monkeypatch):
    monkeypatch.setenv(f"CHICORY_WORKER_{field.upper()}", text)

    assert getattr(ChicoryConfig().worker, field) == value
    assert getattr(WorkerConfig(), field) == value != getattr(WorkerConfig.model_construct(), field)


@of(APP_VARIABLES)
def test_every_app_setting_has_its_variable(field, text, value, monkeypatch):
    monkeypatch.setenv(f"CHICORY_{field.upper()}", text)

    assert getattr(ChicoryConfig(), field) == value


def test_no_setting_is_missing_on_this_page():
    assert set(WORKER_VARIABLES) == set(WorkerConfig.model_fields)
    assert set(APP_VARIABLES) == set(ChicoryConfig.model_fields) - {"broker", "backend", "worker"}


def test_the_addresses_have_their_variables(monkeypatch):
    monkeypatch.setenv("CHICORY_BROKER_URL", "memory://")
    monkeypatch.setenv("CHICORY_BACKEND_URL", "memory://")

    app = Chicory()

    assert (app.broker.address, app.backend.address) == ("memory://", "memory://")


@pytest.mark.parametrize(
    "name",
    [
        "CHICORY_BROKER_URL",
        "CHICORY_BACKEND_URL",
        "CHICORY_PLUGINS",
        "CHICORY_WORKER_QUEUE",
        "CHICORY_APP",
        "CHICORY_DISABLE_PLUGIN_AUTOLOAD",
    ],
)
def test_every_variable_of_the_core_is_known(name):
    assert name in known_variables([])


def test_the_defaults_are_those_of_the_contract():
    worker = WorkerConfig()

    assert worker.concurrency == min(32, (os.cpu_count() or 1) + 4)
    assert (worker.queue, worker.use_dead_letter_queue) == ("default", False)
    assert (worker.heartbeat_interval, worker.heartbeat_ttl) == (10, 30)
    assert (worker.cleanup_interval, worker.stale_workers_timeout, worker.shutdown_timeout) == (900, 300, 30)
    assert (worker.log_level, worker.log_format) == ("INFO", "auto")
    assert (worker.lease_seconds, worker.max_deliveries) == (30, 5)
    assert EMBEDDED_DEFAULT == "sqlite:///.chicory/chicory.db"


# --- queues --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "text", "names"),
    [
        ("mail", "mail", ("mail",)),
        ("high,low", "high,low", ("high", "low")),
        (["high", "low"], "high,low", ("high", "low")),
        (("high",), "high", ("high",)),
        (" high , low,, high", " high , low,, high", ("high", "low")),
    ],
    ids=["one", "several", "list", "tuple", "untidy"],
)
def test_the_queue_reads_back_as_text(given, text, names):
    worker = WorkerConfig(queue=given)

    assert (worker.queue, worker.queues) == (text, names)


# --- refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"heartbeat_interval": 30.0}, "heartbeat_ttl must exceed heartbeat_interval"),
        ({"stall_limit_seconds": 1.0}, "stall_limit_seconds must exceed block_report_seconds"),
        ({"health_address": "8081"}, "must be written host:port, as 127.0.0.1:8081"),
        ({"queue": " , "}, "queue must name at least one queue"),
        ({"queue": []}, "queue must name at least one queue"),
        ({"log_level": "LOUD"}, "log_level must be one of debug, info, warning, error, critical"),
        ({"log_format": "xml"}, "log_format must be one of auto, console, json"),
        ({"concurrency": 0}, "concurrency"),
        ({"shutdown_timeout": -1}, "shutdown_timeout"),
        ({"lease_seconds": 0}, "lease_seconds"),
    ],
    ids=["ttl", "stall", "address", "no queue", "empty list", "log level", "log format", "concurrency", "shutdown", "lease"],
)
def test_worker_settings_that_make_no_sense_are_refused(given, text):
    with pytest.raises(pydantic.ValidationError, match=text):
        WorkerConfig(**given)
    with pytest.raises(ConfigurationError, match=text):
        WorkerConfig().override(given)


def test_a_misspelt_argument_is_refused_with_the_nearest():
    with pytest.raises(ConfigurationError, match="WorkerConfig has no setting 'conccurency': did you mean 'concurrency'"):
        WorkerConfig(conccurency=3)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("CHICORY_VALIDATION_MODE", "hunter2"),
        ("CHICORY_RESULT_TTL", "hunter2"),
        ("CHICORY_WORKER_CONCURRENCY", "hunter2"),
        ("CHICORY_WORKER_LEASE_SECONDS", "-2"),
    ],
    ids=lambda value: value,
)
def test_an_app_names_the_variable_that_does_not_fit_and_not_its_value(variable, value, monkeypatch):
    monkeypatch.setenv(variable, value)

    with pytest.raises(ConfigurationError) as refused:
        Chicory(broker="memory")

    assert variable in str(refused.value)
    assert value not in str(refused.value).replace(variable, "")


@pytest.mark.parametrize("mode", ["validation_mode", "delivery_mode"])
def test_an_argument_of_the_app_that_does_not_fit_is_refused(mode):
    with pytest.raises(ConfigurationError, match="hunter"):
        Chicory(broker="memory", **{mode: "hunter"})


# --- misspelt variables --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("CHICORY_WORKER_CONCURENCY", "CHICORY_WORKER_CONCURRENCY"),
        ("CHICORY_BROKER_ULR", "CHICORY_BROKER_URL"),
        ("CHICORY_PLUGIN", "CHICORY_PLUGINS"),
    ],
    ids=["worker", "broker", "app"],
)
@pytest.mark.parametrize("source", ["environment", ".env"])
def test_making_an_app_warns_of_a_misspelt_variable(name, nearest, source, no_settings, monkeypatch):
    if source == "environment":
        monkeypatch.setenv(name, "3")
    else:
        (no_settings / ".env").write_text(f"{name}=3\n")

    with pytest.warns(ConfigurationWarning, match=f"{name} is not a setting of chicory: did you mean {nearest}?"):
        Chicory(broker="memory")


@pytest.mark.parametrize("name", ["CHICORY_BROKER", "CHICORY_BACKEND", "CHICORY_WORKER"])
def test_a_variable_for_a_whole_group_is_refused_or_noticed_with_its_name(name, monkeypatch):
    monkeypatch.setenv(name, "redis")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises((ConfigurationError, ConfigurationWarning)) as refused:
            Chicory(broker="memory")

    assert name in str(refused.value)


def test_variables_that_are_right_do_not_warn(monkeypatch):
    monkeypatch.setenv("CHICORY_WORKER_QUEUE", "mail")
    monkeypatch.setenv("CHICORY_APP", "tasks:app")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Chicory(broker="memory")


# --- config objects ------------------------------------------------------------------------------


def test_a_config_object_handed_in_is_not_changed(monkeypatch):
    config = ChicoryConfig(validation_mode=ValidationMode.NONE, worker=WorkerConfig(concurrency=3))
    before = config.model_dump_json(exclude={"broker", "backend"})
    monkeypatch.setenv("CHICORY_WORKER_QUEUE", "later")

    with launching(Launch(worker={"concurrency": 9})):
        app = Chicory(broker="memory", config=config, validation_mode=ValidationMode.STRICT)
        worker = Worker(app)

    assert (app.config.validation_mode, worker.config.concurrency) == (ValidationMode.STRICT, 9)
    assert config.model_dump_json(exclude={"broker", "backend"}) == before
    assert app.config.worker.concurrency == 3
