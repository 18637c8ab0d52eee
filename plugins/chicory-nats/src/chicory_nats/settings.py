"""The settings of the NATS broker and backend."""

from __future__ import annotations

from typing import ClassVar, final

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from chicory.plugin import BackendSection, BrokerSection, PluginSettings, settings_from

__all__ = ["NatsBackendConfig", "NatsBrokerConfig", "ServerSection"]


class ServerSection(PluginSettings):
    """What a server is asked for, whatever it keeps. An ``url`` beats the fields that it says too."""

    url: str | None = None
    """``nats://`` or ``tls://``, several servers of one cluster comma-joined; None: as the other fields say."""
    host: str = "127.0.0.1"
    port: int = Field(default=4222, gt=0, lt=65536)
    username: str | None = None
    password: SecretStr | None = None
    token: SecretStr | None = None
    creds_file: str | None = None
    """A file with a user's JWT and seed."""
    nkey_file: str | None = None
    """A file with a user's nkey seed."""
    tls: bool = False
    """Encrypt the connection, and check the server's certificate."""
    tls_ca_file: str | None = None
    """The authority that the server's certificate must be signed by; None: those of the system."""
    tls_cert_file: str | None = None
    tls_key_file: str | None = None
    """Certificate and key of this client, where the server asks for one."""
    tls_hostname: str | None = None
    """The name that the server's certificate is for, if it is not its address."""
    namespace: str = Field(default="chicory", pattern=r"^[A-Za-z0-9_-]{1,60}$")
    """What streams, buckets and subjects are called after."""
    replicas: int = Field(default=1, ge=1, le=5)
    """On how many servers of a cluster each message and result is kept."""
    inbox_prefix: str = Field(default="_INBOX", pattern=r"^[A-Za-z0-9_.-]+$")
    """Where answers come to: with permissions for it alone, users cannot read those of others."""
    request_timeout: float = Field(default=5.0, gt=0)
    """Seconds after which a server that does not answer counts as gone."""


@final
class NatsBrokerConfig(ServerSection, BrokerSection):
    """``config.broker.nats``, ``CHICORY_BROKER_NATS_*``."""

    model_config: ClassVar[SettingsConfigDict] = settings_from("broker", "nats")

    monitor_url: str | None = None
    """``http://HOST:8222`` of a server with monitoring: where ``chicory doctor`` learns how often it syncs to disk."""


@final
class NatsBackendConfig(ServerSection, BackendSection):
    """``config.backend.nats``, ``CHICORY_BACKEND_NATS_*``."""

    model_config: ClassVar[SettingsConfigDict] = settings_from("backend", "nats")
