"""The settings of the SQLite broker and backend."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal, final

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from chicory.plugin import BackendSection, BrokerSection, settings_from

__all__ = ["DEFAULT_PATH", "Durability", "SqliteBackendConfig", "SqliteBrokerConfig"]

DEFAULT_PATH = Path(".chicory/chicory.db")
Durability = Literal["full", "normal"]


@final
class SqliteBrokerConfig(BrokerSection):
    """``config.broker.sqlite``, ``CHICORY_BROKER_SQLITE_*``."""

    model_config: ClassVar[SettingsConfigDict] = settings_from("broker", "sqlite")

    path: Path = DEFAULT_PATH
    """The file, relative to the working directory; made with its directory if it does not exist."""
    durability: Durability = "full"
    """``full`` syncs each commit to the disk; ``normal`` may lose the last commits at a power cut (not at a crash)."""
    lock_seconds: float = Field(default=10.0, gt=0)
    """How long to wait for another process that is writing, before it counts as not answering."""


@final
class SqliteBackendConfig(BackendSection):
    """``config.backend.sqlite``, ``CHICORY_BACKEND_SQLITE_*``."""

    model_config: ClassVar[SettingsConfigDict] = settings_from("backend", "sqlite")

    path: Path = DEFAULT_PATH
    """The file, relative to the working directory; made with its directory if it does not exist."""
    durability: Durability = "full"
    """As for the broker. Where both are one file, the broker's setting holds."""
    lock_seconds: float = Field(default=10.0, gt=0)
    """As for the broker."""
