"""Redis and Valkey for chicory: a broker on streams, and a result backend."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chicory_redis.backend import RedisBackend
    from chicory_redis.broker import RedisBroker
    from chicory_redis.server import Place
    from chicory_redis.settings import RedisBackendConfig, RedisBrokerConfig

_HOME = {
    "Place": "server",
    "RedisBackend": "backend",
    "RedisBackendConfig": "settings",
    "RedisBroker": "broker",
    "RedisBrokerConfig": "settings",
}
__all__ = ["Place", "RedisBackend", "RedisBackendConfig", "RedisBroker", "RedisBrokerConfig"]


def __getattr__(name: str) -> object:
    # The plugin is found and asked for its settings without importing the client library.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    return value
