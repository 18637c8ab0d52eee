"""The reference pages against the code that they describe."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from msgspec import NODEFAULT
from pydantic_core import PydanticUndefined

import chicory
import chicory.config
import chicory.plugin
import chicory.testing
from chicory import Chicory, errors, hookspecs
from chicory.cli.root import _COMMANDS, cli
from chicory.codec import Document
from chicory.config import NOT_SETTINGS, BackendConfig, BrokerConfig, ChicoryConfig, WorkerConfig, installed_sections
from chicory.facade import AppBackend, AppBroker
from chicory.message import Envelope
from chicory.plugin import BackendSection, BrokerSection, Capabilities, PluginSettings
from chicory_dlq import DlqConfig
from chicory_nats import NatsBackendConfig, NatsBrokerConfig
from chicory_redis import RedisBackendConfig, RedisBrokerConfig
from chicory_sqlite import SqliteBackendConfig, SqliteBrokerConfig

from .pages import DOCS, ROOT, Page, read_page
from .running import pattern_of


def page_of(name: str) -> Page:
    return read_page(DOCS / "reference" / f"{name}.md")


def section_of(page: Page, heading: str) -> str:
    """The text under a heading of the second level."""
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", page.text, re.MULTILINE | re.DOTALL)
    assert found, f"{page.name} has no section {heading!r}"
    return found[1]


def table(text: str) -> list[list[str]]:
    """The cells of all table rows, without headers."""
    rows = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]
    rules = [index for index, row in enumerate(cells) if all(re.fullmatch(r"-+", cell) for cell in row)]
    return [row for index, row in enumerate(cells) if index not in rules and index + 1 not in rules]


def code(text: str) -> str:
    return text.strip("`")


# --- hooks -----------------------------------------------------------------------------------------

HOOKS = [name for name in vars(hookspecs) if name.startswith("chicory_")]
ANSWERS = ("- When: ", "- Where: ", "- Return value: ", "- Exception: ")


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_has_a_heading_with_its_exact_signature(name):
    signature = str(inspect.signature(getattr(hookspecs, name))).replace("'", "")

    (block,) = page_of("hooks").under(f"`{name}`")

    assert block.text.strip() == f"def {name}{signature}: ..."


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_says_when_where_what_it_returns_and_what_an_exception_does(name):
    section = section_of(page_of("hooks"), f"`{name}`")

    assert [answer for answer in ANSWERS if section.count(f"\n{answer}") != 1] == []


def test_the_sections_of_hooks_are_those_of_the_code_in_its_order():
    assert [heading.strip("`") for heading in page_of("hooks").headings if heading.startswith("`")] == HOOKS


@pytest.mark.parametrize("name", HOOKS)
def test_the_answers_about_a_hook_are_sentences(name):
    section = section_of(page_of("hooks"), f"`{name}`")
    answers = [line for line in section.splitlines() if line.startswith(ANSWERS)]

    assert [line.partition(":")[0] for line in answers] == [answer.partition(":")[0] for answer in ANSWERS]
    assert [line for line in answers if not line.endswith((".", ":")) or len(line.partition(": ")[2]) < 8] == []


def test_every_kind_of_event_is_listed():
    """Those that the code tells: their names stand in its source as they are."""
    folder = Path(chicory.__file__).parent
    texts = "\n".join(file.read_text() for file in folder.glob("*.py"))
    told = set(re.findall(r'"((?:task|worker|broker)\.[a-z_]+)"', texts))
    listed = re.findall(r"`((?:task|worker|broker)\.[a-z_]+)`", section_of(page_of("hooks"), "`chicory_event_sinks`"))

    assert set(listed) == told


# --- settings --------------------------------------------------------------------------------------

MODELS = [
    ChicoryConfig,
    WorkerConfig,
    SqliteBrokerConfig,
    SqliteBackendConfig,
    RedisBrokerConfig,
    RedisBackendConfig,
    DlqConfig,
    NatsBrokerConfig,
    NatsBackendConfig,
]
GROUPS = {"broker", "backend", "worker"}
SHOWN = {
    ("WorkerConfig", "concurrency"): "`min(32, cpus + 4)`",
    ("ChicoryConfig", "plugins"): "none",
    ("ChicoryConfig", "accept_content"): "`application/json`",
    ("ChicoryConfig", "broker"): "`BrokerConfig()`",
    ("ChicoryConfig", "backend"): "`BackendConfig()`",
    ("ChicoryConfig", "worker"): "`WorkerConfig()`",
}


def default_of(model, name: str) -> str:
    if (model.__name__, name) in SHOWN:
        return SHOWN[model.__name__, name]
    default = model.model_fields[name].default
    assert default is not PydanticUndefined, f"{name} has a factory: say in SHOWN how its default is to be shown"
    return "none" if default is None else f"`{default}`"


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_setting_is_there_with_its_variable_and_default(model):
    prefix = model.model_config["env_prefix"]
    rows = {code(row[0]): row for row in table(section_of(page_of("settings"), model.__name__))}

    assert rows.keys() == model.model_fields.keys()
    for name, (_, variable, default, _, meaning) in rows.items():
        if model is not ChicoryConfig or name not in GROUPS:
            assert variable == f"`{prefix}{name.upper()}`"
        assert default == default_of(model, name), name
        assert meaning, name


@pytest.mark.parametrize(("model", "variable"), [(BrokerConfig, "CHICORY_BROKER_URL"), (BackendConfig, "CHICORY_BACKEND_URL")])
def test_urls_are_there_with_their_variables(model, variable, monkeypatch):
    monkeypatch.setenv(variable, "memory://")
    (row,) = table(section_of(page_of("settings"), model.__name__))

    assert [code(cell) for cell in row[:2]] == ["url", variable]
    assert model().url == "memory://"


def test_every_class_of_settings_is_compared_with_its_table():
    """Those of the core, and those that the plugins of this repository contribute."""
    own = {value for value in vars(chicory.config).values() if inspect.isclass(value) and issubclass(value, PluginSettings)}
    public = {kind for kind in own if not kind.__name__.startswith("_")} - {PluginSettings, BrokerSection, BackendSection}

    assert public | {entry.load() for entry in installed_sections().values()} == set(MODELS)


def test_variables_that_are_no_settings_are_there():
    rows = {code(row[0]): row[1] for row in table(section_of(page_of("settings"), "Other variables"))}

    assert rows.keys() == NOT_SETTINGS
    assert all(rows.values())


# --- errors ----------------------------------------------------------------------------------------

ERRORS = [getattr(errors, name) for name in errors.__all__ if inspect.isclass(getattr(errors, name))]
SAMPLES = [
    errors.NotIdleError(
        "1000 runs",
        ("poll.again (ran 1001 times)",),
        "it is sent again by what it does: give that call a countdown, or raise limit=",
    ),
    errors.ThreadsExhaustedError(2, 4),
    errors.BackendNotConfiguredError(),
    errors.CapabilityError("delayed messages", "sqs://queue", "send without countdown"),
    errors.PluginNotFoundError("broker", "redis", (), "chicory-redis"),
    errors.PluginBrokenError("audit", "chicory-audit", "ImportError: no module"),
    errors.PluginConflictError("broker", "kafka", "chicory-kafka", "kafka-for-chicory"),
    errors.TaskDefinitionError("tasks.login", "parameter 'password' would arrive changed"),
    errors.DuplicateTaskError("tasks.add", "tasks.py:3", "tasks.py:9"),
    errors.TaskNotFoundError("tasks.ad", ("tasks.add",)),
    errors.ValidationError("tasks.add", "arguments", (("b", "missing"),)),
    errors.EncodingError("the result of task 'tasks.f': cannot be written as JSON: unknown type"),
    errors.MessageDecodeError("17", "truncated"),
    errors.PayloadTooLargeError("the message for task 'tasks.f'", 600_000, 524_288),
    errors.BrokerConnectionError("sqlite:///q.db", "locked"),
    errors.BrokerFullError("sqlite:///q.db", "database or disk is full"),
    errors.BackendConnectionError("sqlite:///q.db", "locked"),
    errors.TaskFailedError("17", "tasks.divide", "FAILURE", "ZeroDivisionError", "division by zero"),
    errors.ResultNotFoundError("17", "it is unknown"),
    errors.ResultIgnoredError("17", "tasks.f"),
    errors.RetryError(5, "TimeoutError: too slow"),
    errors.FinalError("card is blocked"),
    errors.MaxRetriesExceededError("tasks.poll", 2, "TimeoutError: too slow"),
    errors.TaskTimeoutError("tasks.crunch", 30),
    errors.TaskExpiredError("tasks.f", "2026-01-01T00:00:00+00:00"),
    errors.DeliveryLimitError(6, 5),
    errors.LeaseLost("17"),
    errors.WorkerLost("host-1-abcdef"),
    errors.ProcessStartError("tasks.crunch", "ImportError: no numpy"),
    errors.ProcessDiedError("tasks.crunch", -11),
    errors.RemoteError("Busy", ("shop.Busy",), "till 3 is busy"),
    errors.SyncCallError("delay_sync()", "await add.delay(...)"),
]


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_every_error_has_a_heading_and_its_place_in_the_tree(kind):
    page = page_of("errors")
    tree = page.blocks[0].text

    assert section_of(page, kind.__name__).strip()
    assert re.search(rf"\b{kind.__name__}\b", tree)


def test_the_tree_is_the_one_in_the_module():
    drawn = re.search(r"::\n\n(.*?)\n*\Z", inspect.getdoc(errors), re.DOTALL)[1]

    assert page_of("errors").blocks[0].text.strip() == inspect.cleandoc(drawn)


@pytest.mark.parametrize("error", SAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_has_the_text_that_is_shown(error):
    (block,) = page_of("errors").under(type(error).__name__)

    assert pattern_of(block.text).fullmatch(str(error)), str(error)


def test_every_error_with_a_text_of_its_own_is_shown():
    shown = {type(error) for error in SAMPLES}

    assert {kind for kind in ERRORS if "__str__" in vars(kind)} - shown == set()


@pytest.mark.parametrize("error", SAMPLES, ids=lambda error: type(error).__name__)
def test_the_facts_of_an_error_are_its_attributes(error):
    section = section_of(page_of("errors"), type(error).__name__)
    line = next((line for line in section.splitlines() if line.startswith("Facts: ")), "")

    assert set(re.findall(r"`(\w+)`", line)) == set(vars(error)) - {"__notes__"}


# --- command line ----------------------------------------------------------------------------------


def help_of(*words: str) -> str:
    done = CliRunner().invoke(cli, [*words, "--help"], prog_name="chicory", terminal_width=78)
    assert done.exit_code == 0, done.output
    return done.output


def as_words(text: str) -> list[str]:
    """The help apart from its layout, and from how a release of click writes choices."""
    return text.lower().split()


def with_inner_commands(name: str) -> list[str]:
    """The command, and those of the group that it may be."""
    command = cli.get_command(click.Context(cli), name)
    return [name, *(f"{name} {inner}" for inner in getattr(command, "commands", ()))]


OF_PLUGINS = ["dlq"]
"""Commands that the plugins of this repository add."""
COMMANDS = [words for name in [*_COMMANDS, *OF_PLUGINS] for words in with_inner_commands(name)]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_is_the_one_that_is_shown(command):
    (block,) = page_of("cli").under(f"chicory {command}")

    shown = help_of(*command.split())
    assert as_words(block.text) == as_words(shown), f"put this in its place:\n{shown}"


def test_the_help_of_all_commands_is_the_one_that_is_shown():
    (block,) = page_of("cli").under("chicory")

    assert as_words(block.text) == as_words(help_of()), f"put this in its place:\n{help_of()}"


def test_there_is_no_heading_for_a_command_that_is_none():
    headings = [heading for heading in page_of("cli").headings if heading.startswith("chicory ")]

    assert headings == [f"chicory {command}" for command in COMMANDS]


# --- guarantees ------------------------------------------------------------------------------------

PARTS = ("- Condition: ", "- Cost: ", "- Proof: ")


def functions_in(file: Path) -> set[str]:
    """Names of functions, and ``Class.function``, in a Python file."""
    names = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.ClassDef):
            inner = (child for child in node.body if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef))
            names |= {f"{node.name}.{child.name}" for child in inner}
    return names


def suite_tests() -> set[str]:
    """``Suite.test`` for each test of each suite of ours, inherited ones too."""
    suites = {name: getattr(chicory.testing, name) for name in chicory.testing.__all__ if name.endswith("Suite")}
    return {f"{name}.{test}" for name, suite in suites.items() for test in dir(suite) if test.startswith("test_")}


def missing_tests(text: str) -> list[str]:
    """Tests that *text* names and nobody has written."""
    named = set(re.findall(r"`((?:tests|plugins)/[\w/.-]+\.py::[\w.]+)`", text))
    missing = []
    for reference in sorted(named):
        file, _, name = reference.partition("::")
        path = ROOT / file
        if not path.exists() or name not in functions_in(path):
            missing.append(reference)
    in_suites = suite_tests()
    missing += [name for name in sorted(set(re.findall(r"`(\w+Suite\.test_\w+)`", text))) if name not in in_suites]
    return missing


def test_every_test_that_proves_a_guarantee_exists():
    assert missing_tests(page_of("guarantees").text) == []


def test_every_guarantee_has_its_condition_its_cost_and_its_proof():
    page = page_of("guarantees")
    guarantees = [heading for heading in page.headings[1:] if not heading.startswith("What SQLite loses")]

    assert len(guarantees) >= 12
    for heading in guarantees:
        section = section_of(page, heading)
        assert [part for part in PARTS if section.count(f"\n{part}") != 1] == [], heading
        assert re.search(r"^- Proof: .*`", section, re.MULTILINE), heading


@pytest.mark.parametrize(
    "text",
    ["`tests/e2e/test_faults.py::test_nothing_ever_fails`", "`tests/no/such.py::test_x`", "`BrokerSuite.test_it_is_fine`"],
)
def test_a_test_that_does_not_exist_is_noticed(text):
    assert missing_tests(text) == [text.strip("`")]


# --- values, capabilities, envelope ------------------------------------------------------------------


def shown_default(struct, name: str) -> str:
    index = struct.__struct_fields__.index(name)
    defaults = struct.__struct_defaults__
    at = index - (len(struct.__struct_fields__) - len(defaults))
    default = defaults[at] if at >= 0 else NODEFAULT
    if default is NODEFAULT:
        return "required"
    if hasattr(default, "factory"):
        made = default.factory()
        return f"`{made!r}`" if made == {} else "new"
    return f"`{str(default) if isinstance(default, str) and default else repr(default)}`"


@pytest.mark.parametrize(
    ("struct", "heading"),
    [
        (chicory.TaskOptions, "Options of a task"),
        (chicory.RetryPolicy, "RetryPolicy"),
        (chicory.TaskResult, "TaskResult"),
        (chicory.TaskMessage, "TaskMessage"),
        (chicory.WorkerStats, "WorkerStats"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_every_field_of_a_value_is_there_with_its_default(struct, heading):
    rows = [row for row in table(section_of(page_of("api"), heading)) if len(row) == 3]

    assert [code(row[0]) for row in rows] == list(struct.__struct_fields__)
    wanted = {name: shown_default(struct, name) for name in struct.__struct_fields__}
    if struct is chicory.TaskOptions:
        wanted["name"] = "`module.function`"
    assert {code(row[0]): row[1] for row in rows} == wanted


def test_capabilities_are_those_of_the_code():
    page = page_of("capabilities")
    fields = table(page.text.partition("## What the brokers at hand declare")[0])
    declared = {code(row[0]): row[1:] for row in table(section_of(page, "What the brokers at hand declare"))}
    brokers = [Chicory(broker=name).broker.capabilities for name in ("memory", "sqlite", "redis", "nats")]

    assert {code(row[0]): row[1] for row in fields} == {
        name: shown_default(Capabilities, name) for name in Capabilities.__struct_fields__
    }
    assert declared == {name: [f"`{getattr(b, name)}`" for b in brokers] for name in Capabilities.__struct_fields__}


def test_every_field_of_the_document_and_the_envelope_is_there():
    page = page_of("envelope")
    document = [code(row[0]) for row in table(section_of(page, "Fields of the document"))]
    envelope = [code(row[0]) for row in table(section_of(page, "Fields of the envelope"))]

    assert document == list(Document.__struct_encode_fields__)
    assert sorted(envelope) == sorted(Envelope.__struct_fields__)


# --- the Python interface ----------------------------------------------------------------------------

INTERNAL = {
    "Chicory": {"arguments_of", "backend_twin", "broker_twin", "client", "connection", "event_sinks", "lifespan", "owner"}
    | {"offered", "registry", "results", "send"},
    "Task": {"call", "signature"},
    "AppBackend": {"clock", "fetch_record", "read", "run_sync", "tracks_pending", "unknown_seconds", "wait_record"},
}
"""What parts of chicory ask of each other."""


@pytest.mark.parametrize(
    ("kind", "heading"),
    [
        (chicory.Chicory, "Chicory"),
        (chicory.Task, "Task"),
        (chicory.TaskContext, "TaskContext"),
        (chicory.AsyncResult, "AsyncResult"),
        (chicory.Worker, "Worker"),
        (AppBroker, "app.broker"),
        (AppBackend, "app.backend"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_every_public_member_is_there(kind, heading):
    section = section_of(page_of("api"), heading)
    members = {name for name in vars(kind) if not name.startswith("_")} - INTERNAL.get(kind.__name__, set())

    assert [name for name in sorted(members) if not re.search(rf"`(await )?{name}[`(]", section)] == []


@pytest.mark.parametrize("module", ["chicory", "chicory.plugin", "chicory.testing"])
def test_every_exported_name_is_there(module):
    text = page_of("api").text

    assert [name for name in importlib.import_module(module).__all__ if not re.search(rf"\b{name}\b", text)] == []


# --- benchmarks ------------------------------------------------------------------------------------


def test_the_table_of_benchmarks_is_the_one_of_the_raw_numbers():
    command = [sys.executable, "-m", "benchmarks", "report", "docs/benchmarks.json"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert shown.strip() in (DOCS / "benchmarks.md").read_text()
