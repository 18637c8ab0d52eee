"""The settings of the Redis broker and backend."""

from __future__ import annotations

from typing import ClassVar, final

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from chicory.plugin import BackendSection, BrokerSection, PluginSettings, settings_from

__all__ = ["RedisBackendConfig", "RedisBrokerConfig", "ServerSection"]


class ServerSection(PluginSettings):
    """What a server is asked for, whatever it keeps. An ``url`` beats the fields that it says too."""

    url: str | None = None
    """``redis://``, ``rediss://`` or ``unix://``; None: as the other fields say."""
    host: str = "127.0.0.1"
    port: int = Field(default=6379, gt=0, lt=65536)
    db: int = Field(default=0, ge=0)
    username: str | None = None
    password: SecretStr | None = None
    tls: bool = False
    """Encrypt the connection, and check the server's certificate."""
    tls_ca_file: str | None = None
    """The authority that the server's certificate must be signed by; None: those of the system."""
    tls_cert_file: str | None = None
    tls_key_file: str | None = None
    """Certificate and key of this client, where the server asks for one."""
    key_prefix: str = "chicory"
    """What every key begins with."""
    socket_timeout: float = Field(default=5.0, gt=0)
    """Seconds after which a server that does not answer counts as gone."""


@final
class RedisBrokerConfig(ServerSection, BrokerSection):
    """``config.broker.redis``, ``CHICORY_BROKER_REDIS_*``."""

    model_config: ClassVar[SettingsConfigDict] = settings_from("broker", "redis")

    consumer_group: str = "chicory"
    """The group that all workers of an application read in."""


@final
class RedisBackendConfig(ServerSection, BackendSection):
    """``config.backend.redis``, ``CHICORY_BACKEND_REDIS_*``."""

    model_config: ClassVar[SettingsConfigDict] = settings_from("backend", "redis")
