"""Finding, checking and loading plugins: from real distributions in a directory of their own."""

import importlib.metadata

import pytest

from chicory.errors import PluginBrokenError, PluginConflictError, PluginNotFoundError
from chicory.memory import MemoryBackend, MemoryBroker
from chicory.plugins import CORE, split_names
from chicory.serializer import JSON
from chicory.settings import ConfigurationWarning

from .plugin_sources import NO_AUTOLOAD, load, offering, state_of

pytestmark = pytest.mark.usefixtures("no_settings", "site")

# --- what is there -------------------------------------------------------------------------------


def test_the_builtin_plugins_are_there_without_any_other():
    plugins = load()

    assert [(info.name, info.distribution, info.state) for info in plugins] == [
        ("json", CORE, "active"),
        ("memory", CORE, "active"),
        ("retry", CORE, "active"),
    ]
    assert {info.version for info in plugins} == {importlib.metadata.version(CORE)}


def test_an_installed_plugin_is_loaded_and_shown(site):
    site.install("kafka", offering("kafka"), distribution="chicory-kafka", version="2.1")

    info = state_of(load(), "kafka")

    assert (info.distribution, info.version, info.state, info.reason) == ("chicory-kafka", "2.1", "active", "")
    assert info.offers == ("chicory_register_brokers",)


def test_the_offers_of_all_plugins_are_found_by_name(site):
    site.install("kafka", offering("kafka"))

    plugins = load()

    assert {name: plugin for name, (plugin, _) in plugins.brokers().items()} == {"kafka": "kafka", "memory": "memory"}
    assert list(plugins.backends()) == ["memory"]
    assert list(plugins.serializers()) == [JSON]


def test_the_builtin_specs_build_what_they_name():
    from chicory import ChicoryConfig
    from chicory.plugin import SYSTEM_CLOCK, Place

    plugins = load()
    place = Place(url=None, config=ChicoryConfig(), clock=SYSTEM_CLOCK)

    assert type(plugins.brokers()["memory"][1].build(place)) is MemoryBroker
    assert type(plugins.backends()["memory"][1].build(place)) is MemoryBackend
    assert plugins.serializers()[JSON][1].build().content_type == JSON


@pytest.mark.parametrize(
    ("names", "asked", "blocked"),
    [((), [], set()), (("nats", "no:otel", "no:dlq"), ["nats"], {"otel", "dlq"})],
    ids=["none", "both"],
)
def test_names_are_asked_for_or_blocked(names, asked, blocked):
    assert split_names(iter(names)) == (asked, blocked)


# --- missing and broken --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("nats", "run `pip install chicory-nats`"),
        ("memroy", "did you mean 'memory'?"),
        ("zzz", "installed are json, memory, retry"),
    ],
    ids=["ours", "misspelt", "unknown"],
)
def test_a_plugin_that_was_asked_for_and_is_missing_says_what_to_do(name, hint):
    with pytest.raises(PluginNotFoundError) as missing:
        load(name)

    assert str(missing.value) == f"no plugin {name!r} is installed: {hint}"


BROKEN = {
    "import error": (
        "import a_library_that_is_not_there",
        (),
        "ModuleNotFoundError: No module named 'a_library_that_is_not_there'",
    ),
    "any error": ("raise ValueError('no good')", (), "ValueError: no good"),
    "error of many lines": ("raise ValueError('first line\\nsecond line')", (), "ValueError: first line"),
    "error without text": ("raise RuntimeError", (), "RuntimeError"),
    "syntax error": ("def broken(:", (), "SyntaxError: "),
    "misspelt hook": (
        "from chicory.plugin import hookimpl\n@hookimpl\ndef chicory_register_broker(): return []",
        (),
        "it implements chicory_register_broker, which is no hook; there are chicory_add_hookspecs, ",
    ),
    "unmarked hook": ("def chicory_register_brokers(): return []", (), "chicory_register_brokers is not marked with @hookimpl"),
    "wrapper": (
        "from chicory.plugin import hookimpl\n@hookimpl(wrapper=True)\ndef chicory_register_brokers(): return (yield)",
        (),
        "chicory_register_brokers is a hook wrapper; hooks of chicory only collect",
    ),
    "async hook": (
        "from chicory.plugin import hookimpl\n@hookimpl\nasync def chicory_register_brokers(): return []",
        (),
        "chicory_register_brokers is an async function",
    ),
    "argument that no hook has": (
        "from chicory.plugin import hookimpl\n@hookimpl\ndef chicory_register_brokers(application): return []",
        (),
        "application",
    ),
    "older api": ("CHICORY_API = (0, 9)", (), "it was written for plugin API 0.9, and this chicory has 1.0"),
    "newer api": ("CHICORY_API = (1, 1)", (), "it was written for plugin API 1.1, and this chicory has 1.0"),
    "next api": ("CHICORY_API = (2, 0)", (), "it was written for plugin API 2.0, and this chicory has 1.0"),
    "unmet requirement": ("", ("chicory-core>=99",), "it requires chicory-core>=99, and chicory-core "),
    "unmet requirement, spelt otherwise": ("", ("Chicory_Core>=99",), "it requires Chicory_Core>=99, and chicory-core "),
}
every_fault = pytest.mark.parametrize(("source", "requires", "cause"), BROKEN.values(), ids=list(BROKEN))


@every_fault
def test_a_broken_plugin_that_was_asked_for_is_an_error(source, requires, cause, site):
    site.install("bad", source, distribution="chicory-bad", requires=requires)

    with pytest.raises(PluginBrokenError) as broken:
        load("bad")

    assert (broken.value.name, broken.value.distribution) == ("bad", "chicory-bad")
    assert cause in broken.value.cause
    assert "\n" not in str(broken.value)


@every_fault
def test_a_broken_plugin_that_is_merely_installed_is_a_warning(source, requires, cause, site):
    site.install("bad", source, distribution="chicory-bad", requires=requires)

    with pytest.warns(ConfigurationWarning) as noticed:
        plugins = load()

    (warning,) = noticed
    assert str(warning.message).startswith("plugin 'bad' (chicory-bad) cannot be loaded: ")
    info = state_of(plugins, "bad")
    assert (info.state, cause in info.reason) == ("broken", True)


@pytest.mark.parametrize(
    "second", ["def chicory_task_registered(nonsense): ...", "def chicory_zzz(): return []"], ids=["arguments", "no hook"]
)
def test_a_broken_plugin_contributes_nothing(second, site):
    site.install("bad", offering("bad") + f"\n    @hookimpl\n    {second}\n")

    with pytest.warns(ConfigurationWarning):
        plugins = load()

    assert list(plugins.brokers()) == ["memory"]


@pytest.mark.parametrize(
    ("source", "requires"),
    [
        ("CHICORY_API = (1, 0)", ("chicory-core>=0.1",)),
        ("", ("chicory-core>=0.1.dev0,<1", "pydantic")),
        ("", ("chicory-core>=99; extra == 'test'",)),
        ("", ("chicory-core>=99; python_version < '3'",)),
        ("chicory_version = (1, 0)", ()),
    ],
    ids=[
        "states its api",
        "its requirement is met",
        "requirement of an extra",
        "requirement of another python",
        "a name of its own",
    ],
)
def test_a_plugin_that_fits_is_active(source, requires, site):
    site.install("good", source, requires=requires)

    assert state_of(load("good"), "good").state == "active"


# --- conflicts -----------------------------------------------------------------------------------


def test_two_plugins_that_offer_one_broker_are_both_named(site):
    site.install("kafka", offering("kafka"), distribution="first-kafka")
    site.install("rival", offering("kafka"), distribution="second-kafka")

    with pytest.raises(PluginConflictError) as conflict:
        load().brokers()

    assert str(conflict.value) == (
        "first-kafka and second-kafka both offer the broker 'kafka': block one of the plugins with --plugin no:NAME"
    )


def test_blocking_one_of_two_rivals_settles_the_conflict(site):
    site.install("kafka", offering("kafka"))
    site.install("rival", offering("kafka"))

    assert load("no:kafka").brokers()["kafka"][0] == "rival"


def test_a_plugin_may_not_take_a_builtin_name(site):
    site.install("mine", offering("memory"), distribution="my-memory")

    with pytest.raises(PluginConflictError, match=f"{CORE} and my-memory both offer the broker 'memory'"):
        load().brokers()


def test_two_distributions_with_one_plugin_name_are_both_named(site):
    site.install("one", "", distribution="first", entry_points={"chicory.plugins": {"kafka": "one"}})
    site.install("two", "", distribution="second", entry_points={"chicory.plugins": {"kafka": "two"}})

    with pytest.raises(PluginConflictError) as conflict:
        load()

    assert {conflict.value.first, conflict.value.second} == {"first", "second"}
    assert (conflict.value.kind, conflict.value.name) == ("plugin", "kafka")


# --- blocked and idle ----------------------------------------------------------------------------


def test_a_blocked_plugin_is_not_even_imported(site):
    site.install("bad", "raise ValueError")

    plugins = load("no:bad")

    assert (state_of(plugins, "bad").state, state_of(plugins, "bad").reason) == ("blocked", "by no:bad")


def test_a_builtin_plugin_can_be_blocked():
    plugins = load("no:memory")

    assert state_of(plugins, "memory").state == "blocked"
    assert plugins.brokers() == {}


def test_without_autoload_only_what_was_asked_for_is_loaded(site, monkeypatch):
    monkeypatch.setenv(NO_AUTOLOAD, "1")
    site.install("kafka", offering("kafka"))
    site.install("other", "raise ValueError")

    plugins = load("kafka")

    assert (state_of(plugins, "kafka").state, state_of(plugins, "other").state) == ("active", "idle")
    assert state_of(plugins, "other").reason == f"{NO_AUTOLOAD} is set"


def test_an_idle_plugin_is_loaded_when_it_is_needed(site, monkeypatch):
    monkeypatch.setenv(NO_AUTOLOAD, "1")
    site.install("kafka", offering("kafka"))
    plugins = load()
    assert "kafka" not in plugins.brokers()

    plugins.ensure("kafka")

    assert state_of(plugins, "kafka").state == "active"
    assert "kafka" in plugins.brokers()


@pytest.mark.parametrize("name", ["memory", "nowhere", "kafka"], ids=["active", "not installed", "blocked"])
def test_ensuring_what_is_active_or_cannot_be_had_is_nothing(name, site):
    site.install("kafka", offering("kafka"))
    plugins = load("no:kafka")
    before = list(plugins)

    plugins.ensure(name)

    assert list(plugins) == before


def test_an_idle_plugin_that_is_broken_is_an_error_when_it_is_needed(site, monkeypatch):
    monkeypatch.setenv(NO_AUTOLOAD, "1")
    site.install("bad", "raise ValueError('no good')")
    plugins = load()

    with pytest.raises(PluginBrokenError, match="no good"):
        plugins.ensure("bad")
