"""The configuration: the core's own settings, and the sections that plugins contribute.

A section of an installed plugin (``RedisBrokerConfig``) can be imported from here; it is found through the entry-point group
``chicory.config``, where its class name is its key. ``<Name>BrokerConfig`` is the section ``config.broker.<name>``.
"""

from __future__ import annotations

import os
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Generic, TypeVar, cast, final

import pydantic
from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from chicory.errors import ConfigurationError, PluginConflictError, PluginNotFoundError
from chicory.message import DEFAULT_QUEUE, DeliveryMode, ValidationMode
from chicory.serializer import JSON
from chicory.settings import BackendSection, BrokerSection, PluginSettings, mask, readable, settings_from, variables_of
from chicory.vitals import host_and_port

if TYPE_CHECKING:
    from collections.abc import Sequence

    # What type checkers see of the plugins that live in this repository; at run time they are found by name.
    from chicory_nats.settings import NatsBackendConfig as NatsBackendConfig  # noqa: PLC0414 - re-exported
    from chicory_nats.settings import NatsBrokerConfig as NatsBrokerConfig  # noqa: PLC0414
    from chicory_redis.settings import RedisBackendConfig as RedisBackendConfig  # noqa: PLC0414 - re-exported
    from chicory_redis.settings import RedisBrokerConfig as RedisBrokerConfig  # noqa: PLC0414
    from chicory_sqlite.settings import SqliteBackendConfig as SqliteBackendConfig  # noqa: PLC0414 - re-exported
    from chicory_sqlite.settings import SqliteBrokerConfig as SqliteBrokerConfig  # noqa: PLC0414

__all__ = ["EMBEDDED_DEFAULT", "BackendConfig", "BrokerConfig", "ChicoryConfig", "WorkerConfig", "install_hint"]

EMBEDDED_BROKER = "sqlite"
"""Used when no source names a broker; its section says where, so that its variables hold."""
EMBEDDED_DEFAULT = "sqlite:///.chicory/chicory.db"
"""Where that is unless they say otherwise: one file below the working directory."""

_GROUP = "chicory.config"
_OURS = ("sqlite", "redis", "nats", "otel", "dlq")

S = TypeVar("S", bound=PluginSettings)


def install_hint(name: str) -> str | None:
    """The distribution to install for a plugin of ours that is missing; None for a name we do not know."""
    return f"chicory-{name}" if name in _OURS else None


def _comma_list(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _comma_text(value: object) -> object:
    return ",".join(str(part) for part in value) if isinstance(value, (list, tuple)) else value


def _address(value: str | None) -> str | None:
    if value is not None:
        host_and_port(value)
    return value


CommaList = Annotated[list[str], NoDecode, BeforeValidator(_comma_list)]


@final
class WorkerConfig(PluginSettings):
    """How a worker works. Each field is ``CHICORY_WORKER_<FIELD>`` in the environment too."""

    model_config: ClassVar[SettingsConfigDict] = settings_from("worker")

    concurrency: int = Field(default_factory=lambda: min(32, (os.cpu_count() or 1) + 4), gt=0)
    """Tasks running at once in one process."""
    queue: Annotated[str, BeforeValidator(_comma_text)] = DEFAULT_QUEUE
    """One queue, or several comma-joined (a list is taken too), in order of precedence."""
    use_dead_letter_queue: bool = False
    """Set messages that failed for good aside (needs the dlq plugin)."""
    heartbeat_interval: float = Field(default=10.0, gt=0)
    """Seconds between two heartbeats."""
    heartbeat_ttl: float = Field(default=30, gt=0)
    """Seconds after which a worker that does not beat counts as gone."""
    cleanup_interval: float = Field(default=900, gt=0)
    """Seconds between two looks for workers that are gone."""
    stale_workers_timeout: float = Field(default=300, gt=0)
    """Seconds without heartbeat after which such a look forgets a worker."""
    shutdown_timeout: float = Field(default=30.0, ge=0)
    """Seconds that running tasks get to finish when the worker is told to stop."""
    log_level: str = "INFO"
    """DEBUG, INFO, WARNING, ERROR or CRITICAL."""
    log_format: str = "auto"
    """``console``, ``json``, or ``auto``: console on a terminal, JSON lines elsewhere."""
    lease_seconds: float = Field(default=30.0, gt=0)
    """How long a message is this worker's without being renewed; it is renewed every third of that."""
    max_deliveries: int = Field(default=5, gt=0)
    """How often a message is handed out before a task that never settles counts as failed."""
    prefetch: int = Field(default=256, ge=0)
    """The most messages received ahead of free slots; how many really are: as were finished in the last 100 ms."""
    threads: int | None = Field(default=None, gt=0)
    """Threads for sync tasks; as many as ``concurrency`` unless given."""
    processes: int | None = Field(default=None, gt=0)
    """Child processes for tasks with ``execution="process"``; at most one per CPU and ``concurrency`` unless given."""
    process_recycle_tasks: int = Field(default=1000, gt=0)
    """Tasks after which a child process is replaced by a new one."""
    process_memory_bytes: int | None = Field(default=None, gt=0)
    """The address space of a child process (RLIMIT_AS); beyond it the task gets a ``MemoryError``. None: no limit."""
    unknown_task_seconds: float = Field(default=600.0, ge=0)
    """For how long a message with an unknown task is put back, for a worker that knows it, before it fails."""
    block_report_seconds: float = Field(default=1.0, gt=0)
    """After how long a task loop that does not turn is reported, with the task and where it is."""
    stall_limit_seconds: float = Field(default=300.0, gt=0)
    """After how long a task loop that does not turn ends the process, with exit code 70; ``inf``: never."""
    health_address: Annotated[str | None, AfterValidator(_address)] = None
    """``host:port`` on which ``/live`` and ``/ready`` answer; port 0 takes a free one; None: nowhere."""
    health_file: str | None = None
    """The state file that ``chicory health`` reads, ``{pid}`` filled in; None: in the folder of this user."""

    @model_validator(mode="after")
    def _check(self) -> WorkerConfig:
        if self.heartbeat_ttl <= self.heartbeat_interval:
            raise ValueError("heartbeat_ttl must exceed heartbeat_interval, or a worker is gone between two beats")
        if self.stall_limit_seconds <= self.block_report_seconds:
            raise ValueError(
                "stall_limit_seconds must exceed block_report_seconds: a block is reported before it ends the worker"
            )
        if not self.queues:
            raise ValueError("queue must name at least one queue")
        for name, allowed in (("log_level", _LOG_LEVELS), ("log_format", _LOG_FORMATS)):
            if getattr(self, name).lower() not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}")
        return self

    @property
    def queues(self) -> tuple[str, ...]:
        """The queues in order of precedence, each once."""
        return tuple(dict.fromkeys(name.strip() for name in self.queue.split(",") if name.strip()))

    def override(self, values: dict[str, Any]) -> WorkerConfig:
        """A copy in which *values* (those that are not None) beat everything else.

        Raises:
            ConfigurationError: a value does not fit.
        """
        given = {name: value for name, value in values.items() if value is not None}
        try:
            return WorkerConfig(**{**self.model_dump(), **given})
        except pydantic.ValidationError as error:
            raise ConfigurationError(f"worker settings: {readable(error)}") from error


_LOG_LEVELS = ("debug", "info", "warning", "error", "critical")
_LOG_FORMATS = ("auto", "console", "json")


class _Url(PluginSettings):
    url: str | None = None


class _BrokerUrl(_Url):
    model_config: ClassVar[SettingsConfigDict] = settings_from("broker")


class _BackendUrl(_Url):
    model_config: ClassVar[SettingsConfigDict] = settings_from("backend")


class _Sections(Generic[S]):
    """A URL and the sections of plugins, each made from the environment when first asked for, unless given."""

    _kind: ClassVar[str]
    _base: ClassVar[type[PluginSettings]]
    _url_model: ClassVar[type[_Url]]

    def __init__(self, *, url: str | None = None, **sections: S) -> None:
        for name, section in sections.items():
            if not isinstance(section, self._base):
                expected = f"{name.title()}{self._kind.title()}Config"
                raise ConfigurationError(
                    f"{type(self).__name__}({name}=...) takes a {expected}, not a {type(section).__name__}"
                )
        self._given_url = url
        self._given: dict[str, S] = dict(sections)
        self._made: dict[str, S] = {}

    @property
    def url(self) -> str | None:
        """The address given here, else by ``CHICORY_BROKER_URL`` (``CHICORY_BACKEND_URL``) or a file; None if by nobody."""
        return self._given_url if self._given_url is not None else self._url_model().url

    @property
    def given(self) -> tuple[str, ...]:
        """The sections that were handed in, by name."""
        return tuple(self._given)

    @property
    def given_url(self) -> str | None:
        """The address handed in as an argument, whatever the environment says."""
        return self._given_url

    def section(self, name: str) -> S:
        """The section of the plugin that is called *name*.

        Raises:
            PluginNotFoundError: no installed plugin has one; the text says what to install.
        """
        if name in self._given:
            return self._given[name]
        if name not in self._made:
            model = find_section(f"{name}{self._kind}config")
            self._made[name] = cast("S", model())
        return self._made[name]

    def __getattr__(self, name: str) -> Any:  # Any: only the sections declared by the subclasses are known to type checkers
        if name.startswith("_"):
            raise AttributeError(name)
        return self.section(name)

    def __repr__(self) -> str:
        shown = [f"url={mask(self._given_url)!r}"] if self._given_url else []
        return f"{type(self).__name__}({', '.join(shown + [f'{k}={v!r}' for k, v in self._given.items()])})"


@final
class BrokerConfig(_Sections[BrokerSection]):
    """Where messages go: a URL, or sections of broker plugins (``redis=RedisBrokerConfig(...)``)."""

    _kind: ClassVar[str] = "broker"
    _base: ClassVar[type[PluginSettings]] = BrokerSection
    _url_model: ClassVar[type[_Url]] = _BrokerUrl
    if TYPE_CHECKING:
        nats: NatsBrokerConfig
        redis: RedisBrokerConfig
        sqlite: SqliteBrokerConfig


@final
class BackendConfig(_Sections[BackendSection]):
    """Where results go: a URL, or sections of backend plugins."""

    _kind: ClassVar[str] = "backend"
    _base: ClassVar[type[PluginSettings]] = BackendSection
    _url_model: ClassVar[type[_Url]] = _BackendUrl
    if TYPE_CHECKING:
        nats: NatsBackendConfig
        redis: RedisBackendConfig
        sqlite: SqliteBackendConfig


@final
class ChicoryConfig(PluginSettings):
    """All settings of an app. Each simple field is ``CHICORY_<FIELD>`` in the environment too."""

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(**settings_from(), arbitrary_types_allowed=True)

    groups: ClassVar[frozenset[str]] = frozenset({"broker", "backend", "worker"})

    broker: BrokerConfig = Field(default_factory=BrokerConfig)
    backend: BackendConfig = Field(default_factory=BackendConfig)
    worker: Annotated[WorkerConfig, NoDecode] = Field(default_factory=WorkerConfig)
    plugins: CommaList = Field(default_factory=list)
    """Plugins to load by name; ``no:NAME`` blocks one."""
    validation_mode: ValidationMode = ValidationMode.INPUTS
    delivery_mode: DeliveryMode = DeliveryMode.AT_LEAST_ONCE
    serializer: str = JSON
    """Content type that arguments and results are written in."""
    accept_content: CommaList = Field(default_factory=lambda: [JSON])
    """Content types that are read; the one that is written is always among them."""
    max_message_bytes: int = Field(default=512 * 1024, gt=0)
    """The largest message or result, at both ends."""
    result_ttl: float = Field(default=3600.0, gt=0)
    """Seconds for which a result is kept after its task has ended."""
    unknown_seconds: float = Field(default=60.0, gt=0)
    """How long a hand-made result handle waits for the first sign of its id, where no record tells that it exists."""


NOT_SETTINGS = frozenset({"CHICORY_APP", "CHICORY_DISABLE_PLUGIN_AUTOLOAD", "CHICORY_FAULT"})
"""Variables that are read outside of the settings."""


CORE_SETTINGS: tuple[type[PluginSettings], ...] = (ChicoryConfig, WorkerConfig, _BrokerUrl, _BackendUrl)
"""The groups of settings of the core."""


def known_variables(sections: Sequence[type[PluginSettings]]) -> set[str]:
    """Every variable that the core and these plugin sections read."""
    composite = {"CHICORY_BROKER", "CHICORY_BACKEND", "CHICORY_WORKER"}
    return set().union(*(variables_of(model) for model in (*CORE_SETTINGS, *sections))) - composite | NOT_SETTINGS


def installed_sections() -> dict[str, EntryPoint]:
    """The entry points of all sections that installed plugins contribute, by lower-case class name.

    Raises:
        PluginConflictError: two distributions contribute one of the same name.
    """
    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=_GROUP):
        other = found.setdefault(entry.name.lower(), entry)
        if other.value != entry.value:
            first, second = (e.dist.name if e.dist is not None else e.value for e in (other, entry))
            raise PluginConflictError("configuration section", entry.name, first, second)
    return found


def find_section(class_name: str) -> type[PluginSettings]:
    """The section class of that name (in any case), imported from its plugin.

    Raises:
        PluginNotFoundError: no installed plugin contributes it.
    """
    entries = installed_sections()
    entry = entries.get(class_name.lower())
    if entry is None:
        owner = class_name.lower().removesuffix("config").removesuffix("broker").removesuffix("backend")
        known = tuple(sorted(e.name for e in entries.values()))
        raise PluginNotFoundError("configuration section", class_name, known, install_hint(owner))
    return cast("type[PluginSettings]", entry.load())


def __getattr__(name: str) -> Any:
    if name.endswith("Config") and not name.startswith("_"):
        return find_section(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
