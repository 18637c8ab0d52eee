"""What an exception in a hook does: as its section in docs/reference/hooks.md says, and always with the plugin's name."""

import pytest

import chicory.app
import chicory.cli.extension
from chicory import Chicory, Worker, hookspecs
from chicory.builtin import BUILTINS
from chicory.cli.root import _Root
from chicory.doctor import examine
from chicory.errors import PluginBrokenError
from chicory.plugin import hookimpl

HOOKS = {name for name in vars(hookspecs) if name.startswith("chicory_")}


class Wanted:
    """What nobody offers."""


async def make_app():
    Chicory(broker="memory")


async def require():
    Chicory(broker="memory").require(Wanted)


async def register_task():
    Chicory(broker="memory").task(name="one")(lambda: None)


async def connect():
    async with Chicory(broker="memory"):
        raise AssertionError("it connected")


async def start_worker():
    async with Worker(Chicory(broker="memory")):
        raise AssertionError("it started")


async def learn_facts():
    """As the command of a worker does, before it starts one."""
    Chicory(broker="memory").offered("chicory_log_facts")


async def see_a_doctor():
    await examine(Chicory(broker="memory"))


async def show_help():
    chicory.cli.extension.add_commands(_Root("chicory"))


STOPS = {
    "chicory_settings": make_app,
    "chicory_register_brokers": make_app,
    "chicory_register_backends": make_app,
    "chicory_register_serializers": make_app,
    "chicory_register_components": require,
    "chicory_configure": make_app,
    "chicory_task_options": make_app,
    "chicory_task_registered": register_task,
    "chicory_lifespan": connect,
    "chicory_event_sinks": make_app,
    "chicory_log_facts": learn_facts,
    "chicory_doctor": see_a_doctor,
    "chicory_publish_middleware": make_app,
    "chicory_execute_middleware": start_worker,
    "chicory_settle_observers": start_worker,
    "chicory_child_contexts": start_worker,
    "chicory_cli": show_help,
}
ELSEWHERE = {"chicory_add_hookspecs"}
"""test_plugin_hooks.py: it is called while its plugin is loaded."""


def test_every_hook_is_here():
    assert STOPS.keys() | ELSEWHERE == HOOKS


@pytest.mark.parametrize(("hook", "act"), STOPS.items(), ids=list(STOPS))
@pytest.mark.usefixtures("site")
async def test_a_hook_that_raises_stops_what_was_under_way_and_names_the_plugin(hook, act, monkeypatch):
    def fail():
        raise RuntimeError("no good")

    bad = type("Bad", (), {})()
    setattr(bad, hook, hookimpl(fail))
    for module in (chicory.app, chicory.cli.extension):
        monkeypatch.setattr(module, "BUILTINS", {**BUILTINS, "bad": bad})

    with pytest.raises(PluginBrokenError) as stopped:
        await act()

    assert (stopped.value.name, stopped.value.cause) == ("bad", f"{hook} raised RuntimeError: no good")
