"""What chicory finds under the entry point ``sqlite``. Imports no database before one is wanted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote, urlsplit

from chicory.errors import ConfigurationError
from chicory.plugin import App, BackendSpec, BrokerSpec, DoctorCheck, Place, hookimpl

if TYPE_CHECKING:
    from chicory_sqlite.backend import SqliteBackend
    from chicory_sqlite.broker import SqliteBroker
    from chicory_sqlite.settings import SqliteBackendConfig, SqliteBrokerConfig
    from chicory_sqlite.tables import File

CHICORY_API = (1, 0)


@hookimpl
def chicory_register_brokers() -> list[BrokerSpec]:
    return [BrokerSpec(name="sqlite", schemes=("sqlite",), build=_broker)]


@hookimpl
def chicory_register_backends() -> list[BackendSpec]:
    return [BackendSpec(name="sqlite", schemes=("sqlite",), build=_backend)]


@hookimpl
def chicory_doctor(app: App) -> list[DoctorCheck]:
    from chicory_sqlite.checks import Checks

    return [Checks(app)]


def _broker(place: Place) -> SqliteBroker:
    from chicory_sqlite.broker import SqliteBroker

    return SqliteBroker(_file(place, place.config.broker.sqlite))


def _backend(place: Place) -> SqliteBackend:
    from chicory_sqlite.backend import SqliteBackend
    from chicory_sqlite.broker import SqliteBroker

    if (
        place.url is None
        and isinstance(place.broker, SqliteBroker)
        and "path" not in place.config.backend.sqlite.model_fields_set
    ):
        return SqliteBackend(place.broker.file)
    return SqliteBackend(_file(place, place.config.backend.sqlite))


def _file(place: Place, section: SqliteBrokerConfig | SqliteBackendConfig) -> File:
    """The file that a place means: ``sqlite:///relative/path``, ``sqlite:////absolute/path``, or the section's.

    Settings may stand behind it: ``?durability=normal&lock_seconds=30``.
    """
    from chicory_sqlite.tables import File

    if place.url is not None:
        parts = urlsplit(place.url)
        path = unquote(parts.path.removeprefix("/"))
        if parts.netloc or not path:
            raise ConfigurationError(
                f"{place.url!r} names no file: write sqlite:///relative/path.db, or sqlite:////absolute/path.db"
            )
        section = type(section)(**{**section.model_dump(), "path": Path(path), **dict(parse_qsl(parts.query))})
    where = section.path.expanduser()
    return File(
        path=where.resolve(),
        is_relative=not where.is_absolute(),
        durability=section.durability,
        lock_seconds=section.lock_seconds,
        clock=place.clock,
    )
