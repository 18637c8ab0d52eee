"""Loading plugins of the test's own."""

from chicory.builtin import BUILTINS
from chicory.plugins import Plugins

NO_AUTOLOAD = "CHICORY_DISABLE_PLUGIN_AUTOLOAD"


def offering(name):
    """The source of a plugin with a broker called *name*."""
    return f"""
    from chicory.plugin import BrokerSpec, hookimpl

    @hookimpl
    def chicory_register_brokers():
        return [BrokerSpec(name={name!r}, schemes=({name!r},), build=lambda place: place)]
    """


def load(*names):
    return Plugins(names, builtins=BUILTINS)


def state_of(plugins, name):
    (info,) = [info for info in plugins if info.name == name]
    return info
