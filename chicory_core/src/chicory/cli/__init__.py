"""The ``chicory`` command: one file per sub-command, imported when it is used.

What plugins use to write a command of their own is here: the argument ``APP``, the options that say where messages go, the app
itself, and output for people and for programs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from chicory.cli.root import main

if TYPE_CHECKING:
    from chicory.cli.loading import app_argument, connection_options, launch_from, load_app
    from chicory.cli.output import echo_json, echo_table, seconds_text

_HOME = {
    "app_argument": "loading",
    "connection_options": "loading",
    "echo_json": "output",
    "echo_table": "output",
    "launch_from": "loading",
    "load_app": "loading",
    "seconds_text": "output",
}

__all__ = [
    "app_argument",
    "connection_options",
    "echo_json",
    "echo_table",
    "launch_from",
    "load_app",
    "main",
    "seconds_text",
]


def __getattr__(name: str) -> object:
    # Looked up when first used: `chicory --help` must be quick.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value
