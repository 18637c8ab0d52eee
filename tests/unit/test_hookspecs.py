"""Every hook is explained where it is specified."""

import inspect
import re

import pluggy
import pytest

from chicory import hookspecs
from chicory.plugin import hookimpl, hookspec

HOOKS = {name: function for name, function in vars(hookspecs).items() if inspect.isfunction(function)}
every_hook = pytest.mark.parametrize("name", sorted(HOOKS))
DESIGNED = {
    "chicory_add_hookspecs": ["manager"],
    "chicory_settings": [],
    "chicory_register_brokers": [],
    "chicory_register_backends": [],
    "chicory_register_serializers": [],
    "chicory_register_components": [],
    "chicory_configure": ["app"],
    "chicory_task_options": [],
    "chicory_task_registered": ["app", "task"],
    "chicory_lifespan": ["app", "role", "worker"],
    "chicory_event_sinks": ["app"],
    "chicory_log_facts": ["app"],
    "chicory_doctor": ["app"],
    "chicory_publish_middleware": ["app"],
    "chicory_execute_middleware": ["app"],
    "chicory_settle_observers": ["app"],
    "chicory_child_contexts": ["app"],
    "chicory_cli": ["cli"],
}


@every_hook
def test_every_hook_has_a_docstring(name):
    assert re.match(r"[A-Z`].+[.:]", inspect.getdoc(HOOKS[name]) or "", re.DOTALL)


@every_hook
def test_every_hook_begins_with_the_prefix_and_is_marked(name):
    assert name.startswith("chicory_")
    assert HOOKS[name].chicory_spec["firstresult"] is False


@every_hook
def test_every_hook_is_plain_and_typed(name):
    function = HOOKS[name]

    assert not inspect.iscoroutinefunction(function)
    assert {*inspect.signature(function).parameters, "return"} == set(function.__annotations__)


def test_the_hooks_are_those_of_the_design():
    assert {name: list(inspect.signature(function).parameters) for name, function in HOOKS.items()} == DESIGNED


def test_what_plugins_mark_is_a_hook_of_chicory():
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)

    class Plugin:
        @hookimpl
        def chicory_lifespan(self, role):
            return f"as {role}"

    manager.register(Plugin())

    manager.check_pending()
    assert manager.hook.chicory_lifespan(app=None, role="worker", worker=None) == ["as worker"]
    assert (hookimpl.project_name, hookspec.project_name) == ("chicory", "chicory")
