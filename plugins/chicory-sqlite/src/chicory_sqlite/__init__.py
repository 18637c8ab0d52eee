"""SQLite for chicory: the embedded default broker and result backend."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chicory_sqlite.backend import SqliteBackend
    from chicory_sqlite.broker import SqliteBroker
    from chicory_sqlite.settings import SqliteBackendConfig, SqliteBrokerConfig
    from chicory_sqlite.tables import File

_HOME = {
    "File": "tables",
    "SqliteBackend": "backend",
    "SqliteBackendConfig": "settings",
    "SqliteBroker": "broker",
    "SqliteBrokerConfig": "settings",
}
__all__ = ["File", "SqliteBackend", "SqliteBackendConfig", "SqliteBroker", "SqliteBrokerConfig"]


def __getattr__(name: str) -> object:
    # The plugin is found and asked for its settings without opening, or even importing, a database.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    return value
