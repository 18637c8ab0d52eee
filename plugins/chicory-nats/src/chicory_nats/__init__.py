"""NATS JetStream for chicory: a broker on a work-queue stream, and a result backend on a key-value bucket."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chicory_nats.backend import NatsBackend
    from chicory_nats.broker import NatsBroker
    from chicory_nats.server import Place
    from chicory_nats.settings import NatsBackendConfig, NatsBrokerConfig

_HOME = {
    "NatsBackend": "backend",
    "NatsBackendConfig": "settings",
    "NatsBroker": "broker",
    "NatsBrokerConfig": "settings",
    "Place": "server",
}
__all__ = ["NatsBackend", "NatsBackendConfig", "NatsBroker", "NatsBrokerConfig", "Place"]


def __getattr__(name: str) -> object:
    # The plugin is found and asked for its settings without importing the client library.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    return value
