"""A plugin that cannot be used gives one line that says who, what and what to do; nobody has to read a traceback."""

import json

import pytest

from chicory.cli import main

from .plugin_sources import offering

pytestmark = pytest.mark.usefixtures("no_settings", "site")

IMPORTS = "from chicory.plugin import BrokerSection, OptionSpec, PluginSettings, hookimpl, settings_from\n"
SETTINGS = f"""{IMPORTS}
class Settings(PluginSettings):
    model_config = settings_from({{path}})

@hookimpl
def chicory_settings():
    return Settings
"""
OPTION = f"""{IMPORTS}
@hookimpl
def chicory_task_options():
    return [OptionSpec(name={{name!r}}, type=bool)]
"""
SECTION = f"""{IMPORTS}
class KafkaBrokerConfig(BrokerSection):
    model_config = settings_from("broker", "kafka")
"""


@pytest.fixture
def run(capsys):
    """Runs a command line to its end: the exit code, what it printed, and its lines on standard error."""

    def run(*words):
        with pytest.raises(SystemExit) as ended:
            main(words)
        printed = capsys.readouterr()
        return ended.value.code, printed.out, printed.err.splitlines()

    return run


BROKEN = {
    "too old": ("CHICORY_API = (0, 9)", "it was written for plugin API 0.9, and this chicory has 1.0"),
    "too new": ("CHICORY_API = (2, 0)", "it was written for plugin API 2.0, and this chicory has 1.0"),
    "does not import": ("import a_library_that_is_not_there", "No module named 'a_library_that_is_not_there'"),
    "misspelt hook": (
        "from chicory.plugin import hookimpl\n@hookimpl\ndef chicory_register_broker(): return []",
        "it implements chicory_register_broker, which is no hook",
    ),
}
each_broken = pytest.mark.parametrize(("source", "cause"), BROKEN.values(), ids=list(BROKEN))


@each_broken
def test_a_broken_plugin_that_is_asked_for_gives_one_line(run, site, source, cause):
    site.install("bad", source, distribution="chicory-bad")

    code, _, lines = run("plugins", "--plugin", "bad")

    assert code == 2
    (line,) = lines
    assert line.startswith("chicory: plugin 'bad' (chicory-bad) cannot be loaded: ")
    assert cause in line
    assert line.endswith("repair it, or block it with --plugin no:bad")


@each_broken
def test_a_broken_plugin_that_is_merely_installed_has_its_line_in_the_table(run, site, source, cause):
    site.install("bad", source, distribution="chicory-bad")

    code, shown, lines = run("plugins")

    assert (code, lines) == (0, [])
    (line,) = [line for line in shown.splitlines() if line.startswith("bad ")]
    assert cause in line


BLOCK = "block one of the plugins with --plugin no:NAME"
CONFLICTS = {
    "one broker": (
        {"kafka": offering("kafka"), "rival": offering("kafka")},
        f"the-kafka and the-rival both offer the broker 'kafka': {BLOCK}",
    ),
    "a broker of the core": (
        {"mine": offering("memory")},
        f"chicory-core and the-mine both offer the broker 'memory': {BLOCK}",
    ),
    "a plugin of the core": (
        {"retry": OPTION.format(name="unique")},
        "chicory-core and the-retry both offer the plugin 'retry': uninstall one of them",
    ),
    "one settings prefix": (
        {"first": SETTINGS.format(path="'mail'"), "second": SETTINGS.format(path="'mail'")},
        f"the-first and the-second both offer the settings prefix 'CHICORY_MAIL_': {BLOCK}",
    ),
    "a settings prefix of the core": (
        {"mine": SETTINGS.format(path="'worker'")},
        f"chicory-core and the-mine both offer the settings prefix 'CHICORY_WORKER_': {BLOCK}",
    ),
    "every settings prefix": (
        {"mine": SETTINGS.format(path="")},
        f"chicory-core and the-mine both offer the settings prefix 'CHICORY_': {BLOCK}",
    ),
    "one task option": (
        {"first": OPTION.format(name="unique"), "second": OPTION.format(name="unique")},
        f"the-first and the-second both offer the task option 'unique': {BLOCK}",
    ),
    "a task option of the core": (
        {"mine": OPTION.format(name="timeout")},
        f"chicory-core and the-mine both offer the task option 'timeout': {BLOCK}",
    ),
}


@pytest.mark.parametrize(("sources", "text"), CONFLICTS.values(), ids=list(CONFLICTS))
def test_a_conflict_gives_one_line_that_names_both(run, site, sources, text):
    for module, source in sources.items():
        site.install(module, source)

    assert run("plugins") == (2, "", [f"chicory: {text}"])


@pytest.mark.parametrize("blocked", ["first", "second"])
@pytest.mark.parametrize(
    "source", [SETTINGS.format(path="'mail'"), OPTION.format(name="unique")], ids=["settings prefix", "task option"]
)
def test_blocking_either_settles_a_conflict(run, site, source, blocked):
    site.install("first", source)
    site.install("second", source)

    code, _, lines = run("plugins", "--plugin", f"no:{blocked}")

    assert (code, lines) == (0, [])


def test_two_sections_of_one_name_give_one_line_that_names_both(run, site):
    for module in ("first", "second"):
        site.install(module, SECTION, entry_points={"chicory.config": {"KafkaBrokerConfig": f"{module}:KafkaBrokerConfig"}})

    code, _, (line,) = run("plugins")

    assert code == 2
    assert sorted(line.split()[1:4]) == ["and", "the-first", "the-second"]
    assert line.endswith("both offer the configuration section 'KafkaBrokerConfig': uninstall one of them")


def test_a_section_that_is_a_plugins_own_settings_too_is_no_conflict(run, site):
    hook = "\n@hookimpl\ndef chicory_settings():\n    return KafkaBrokerConfig\n"
    groups = {"chicory.plugins": {"kafka": "kafka"}, "chicory.config": {"KafkaBrokerConfig": "kafka:KafkaBrokerConfig"}}
    site.install("kafka", SECTION + hook, entry_points=groups)

    code, _, lines = run("plugins")

    assert (code, lines) == (0, [])


@pytest.fixture
def two_kafkas(site):
    """Two plugins with one URL scheme, and an app that uses it."""
    for module in ("first", "second"):
        groups = {"chicory.plugins": {module: module}, "chicory.schemes": {"kafka": module}}
        source = offering(module).replace(f"schemes=({module!r},)", "schemes=('kafka',)")
        site.install(module, source, entry_points=groups)
    (site.folder / "tasks.py").write_text("from chicory import Chicory\napp = Chicory(broker='kafka://host')\n")
    site.modules.add("tasks")


def test_two_plugins_with_one_scheme_give_one_line_when_it_is_used(run, two_kafkas):
    code, _, lines = run("queues", "tasks:app")

    assert code == 2
    assert lines == [f"chicory: the-first and the-second both offer the URL scheme 'kafka': {BLOCK}"]


@pytest.mark.parametrize(("blocked", "left"), [("first", "second"), ("second", "first")])
def test_blocking_either_says_whom_a_scheme_means(two_kafkas, blocked, left):
    from .plugin_sources import load

    assert load(f"no:{blocked}").owner_of("kafka") == left


COMMAND = """
    from chicory.plugin import hookimpl

    @hookimpl
    def chicory_cli(cli):
        @cli.command({name!r})
        def command():
            pass
"""


@pytest.mark.parametrize(
    ("names", "whose"), [(["worker"], "chicory itself"), (["audit", "audit"], "another plugin")], ids=["core", "plugin"]
)
def test_a_command_that_is_taken_gives_one_line(run, site, names, whose, monkeypatch):
    from chicory.cli import root

    monkeypatch.setattr(root.cli, "commands", {})
    monkeypatch.setattr(root.cli, "_has_asked", False, raising=False)
    for number, name in enumerate(names):
        site.install(f"p{number}", COMMAND.format(name=name), distribution=f"chicory-p{number}")

    code, _, lines = run("--help")

    last = f"p{len(names) - 1}"
    assert code == 2
    assert lines == [
        f"chicory: plugin '{last}' (chicory-{last}) cannot be loaded: chicory_cli raised ValueError: "
        f"the command {names[0]!r} is taken by {whose}; repair it, or block it with --plugin no:{last}"
    ]


# --- the pipeline ----------------------------------------------------------------------------------

LAYERS = """
    from chicory.plugin import ExecuteMiddleware, PublishMiddleware, hookimpl

    async def around(given, proceed):
        return await proceed(given)

    @hookimpl
    def chicory_execute_middleware():
        return [ExecuteMiddleware(stage={execute}, name={name!r}, layer=around)]

    @hookimpl
    def chicory_publish_middleware():
        return [PublishMiddleware(stage={publish}, name={name!r}, layer=around)]
"""


@pytest.fixture
def two_layers(site):
    site.install("aaa", LAYERS.format(name="inner", execute=900, publish=500))
    site.install("zzz", LAYERS.format(name="outer", execute=100, publish=100))


def test_the_pipeline_shows_both_orders_with_stage_and_owner(run, two_layers):
    code, shown, lines = run("plugins", "--pipeline", "--json")

    rows = [(row["around"], row["stage"], row["layer"], row["plugin"]) for row in json.loads(shown)]
    assert (code, lines) == (0, [])
    assert rows == [
        ("publish", 100, "outer", "zzz"),
        ("publish", 500, "inner", "aaa"),
        ("execute", 100, "outer", "zzz"),
        ("execute", 300, "retry", "retry"),
        ("execute", 300, "unknown_task", "core"),
        ("execute", 500, "admit", "core"),
        ("execute", 700, "decode", "core"),
        ("execute", 900, "inner", "aaa"),
        ("execute", 1000, "call", "core"),
    ]


async def test_what_the_pipeline_shows_is_what_is_composed(run, two_layers, monkeypatch):
    from chicory import Chicory, Worker, app, worker

    _, shown, _ = run("plugins", "--pipeline", "--json")
    composed = {}

    def recording(around, in_order):
        def record(layers):
            composed[around] = in_order(layers)
            return composed[around]

        return record

    for module, around in ((app, "publish"), (worker, "execute")):
        monkeypatch.setattr(module, "in_order", recording(around, module.in_order))
    async with Worker(Chicory(broker="memory")):
        pass

    assert composed.keys() == {"publish", "execute"}
    for around, layers in composed.items():
        assert [row["layer"] for row in json.loads(shown) if row["around"] == around] == [layer.name for layer in layers]


def test_the_pipeline_for_people_is_a_table(run, two_layers):
    _, shown, _ = run("plugins", "--pipeline")

    assert [line.split() for line in shown.splitlines()][:2] == [
        ["AROUND", "STAGE", "LAYER", "FROM"],
        ["publish", "100", "outer", "zzz"],
    ]
