"""Collecting what plugins answer, the hooks they add, and the schemes they own."""

import warnings

import pytest

from chicory.errors import PluginBrokenError, PluginNotFoundError

from .plugin_sources import NO_AUTOLOAD, load, offering, state_of

pytestmark = pytest.mark.usefixtures("no_settings", "site")

LISTENING = """
    from chicory.plugin import hookimpl

    @hookimpl
    def chicory_lifespan({arguments}):
        return {answer}
"""


def test_answers_come_in_order_of_plugin_names(site):
    for name in ("zebra", "apple", "mango"):
        site.install(name, LISTENING.format(arguments="app, role", answer=f"({name!r}, app, role)"))

    answers = load().collect("chicory_lifespan", app="app", role="worker")

    assert answers == [(name, (name, "app", "worker")) for name in ("apple", "mango", "zebra")]


def test_a_hook_takes_the_arguments_it_reads(site):
    site.install("some", LISTENING.format(arguments="role", answer="role"))
    site.install("none", LISTENING.format(arguments="", answer="1"))

    assert load().collect("chicory_lifespan", app=None, role="client") == [("none", 1), ("some", "client")]


def test_an_answer_of_none_is_left_out(site):
    site.install("silent", LISTENING.format(arguments="", answer="None"))

    assert load().collect("chicory_lifespan", app=None, role="client") == []


def test_an_error_in_a_hook_names_the_plugin(site):
    site.install("bad", LISTENING.format(arguments="", answer="1 / 0"), distribution="chicory-bad")
    plugins = load()

    with pytest.raises(PluginBrokenError) as broken:
        plugins.collect("chicory_lifespan", app=None, role="client")

    assert (broken.value.name, broken.value.distribution) == ("bad", "chicory-bad")
    assert broken.value.cause == "chicory_lifespan raised ZeroDivisionError: division by zero"


ADDING = """
    import types
    from chicory.plugin import hookimpl, hookspec

    own = types.ModuleType("own")

    @hookspec
    def chicory_brew(kind):
        '''Of the plugin's own.'''

    own.chicory_brew = chicory_brew
    del chicory_brew

    @hookimpl
    def chicory_add_hookspecs(manager):
        {body}
"""


def test_a_plugin_may_add_hooks_that_others_implement(site):
    site.install("zz_adds", ADDING.format(body="manager.add_hookspecs(own)"))
    site.install("brews", "from chicory.plugin import hookimpl\n@hookimpl\ndef chicory_brew(kind): return kind + '!'")

    plugins = load()

    assert plugins.collect("chicory_brew", kind="root") == [("brews", "root!")]
    assert state_of(plugins, "brews").state == "active"


def test_an_error_while_hooks_are_added_names_the_plugin(site):
    site.install("bad", ADDING.format(body="1 / 0"), distribution="chicory-bad")

    with pytest.raises(PluginBrokenError, match=r"plugin 'bad' \(chicory-bad\)"):
        load("bad")


# --- schemes -------------------------------------------------------------------------------------


def test_a_scheme_finds_its_plugin_without_importing_it(site, monkeypatch):
    monkeypatch.setenv(NO_AUTOLOAD, "1")
    groups = {"chicory.plugins": {"kafka": "kafka"}, "chicory.schemes": {"kafka": "kafka", "kafkas": "kafka"}}
    site.install("kafka", "raise ValueError", entry_points=groups)

    plugins = load()

    assert (plugins.owner_of("kafka"), plugins.owner_of("kafkas")) == ("kafka", "kafka")
    assert state_of(plugins, "kafka").state == "idle"


def test_the_scheme_of_a_loaded_plugin_needs_no_entry_point(site):
    site.install("kafka", offering("kafka"))

    assert load().owner_of("kafka") == "kafka"


@pytest.mark.parametrize(
    ("scheme", "install"),
    [("redis", "chicory-redis"), ("rediss", "chicory-redis"), ("unix", "chicory-redis"), ("tls", "chicory-nats")],
    ids=str,
)
def test_a_scheme_of_ours_that_is_missing_says_what_to_install(scheme, install):
    with pytest.raises(PluginNotFoundError, match=f"the URL scheme '{scheme}': run `pip install {install}`"):
        load().owner_of(scheme)


def test_a_fitting_plugin_makes_no_noise(site):
    site.install("kafka", offering("kafka"))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load("kafka")
