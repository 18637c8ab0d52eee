"""What plugins offer: small values that hooks return, and the core collects once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, final

from msgspec import Struct, field

from chicory.backend import Backend
from chicory.broker import Broker
from chicory.clock import Clock
from chicory.config import ChicoryConfig
from chicory.errors import TaskDefinitionError, nearest
from chicory.message import Event
from chicory.serializer import Serializer

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from chicory.task import Task

__all__ = [
    "App",
    "BackendSpec",
    "BrokerSpec",
    "ComponentSpec",
    "DoctorCheck",
    "EventSink",
    "Finding",
    "FindingLevel",
    "Lifespan",
    "OptionSpec",
    "Place",
    "SerializerSpec",
    "plugin_options",
]

T = TypeVar("T")

EventSink = Callable[[Event], None]
"""Called on the event loop for each change of state; must be quick, and must not raise."""
Lifespan = AbstractAsyncContextManager[object]


class App(Protocol):
    """What hooks see of the app."""

    @property
    def config(self) -> ChicoryConfig: ...
    @property
    def tasks(self) -> Mapping[str, Task[..., Any]]: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def serializers(self) -> Mapping[str, Serializer]:
        """Those that are enabled, by content type."""
        ...

    def broker_twin(self) -> Broker:
        """An unopened broker like the app's, for an event loop of its own."""
        ...

    def backend_twin(self) -> Backend:
        """An unopened backend like the app's; raises ``BackendNotConfiguredError`` if there is none."""
        ...

    def require(self, protocol: type[T]) -> T:
        """The component that implements *protocol*; a clear error names the plugins that would offer one."""
        ...

    def tell(self, event: Event) -> None:
        """Give *event* to every event sink; one that raises is logged."""
        ...


@final
class Place(Struct, frozen=True, kw_only=True):
    """Where a broker or backend is to be built.

    ``url`` is None when its section of ``config`` says where. ``broker`` is, for a backend, the one it will work beside.
    ``shared`` is one dictionary per app, for what a plugin's broker and backend have in common.
    """

    url: str | None
    config: ChicoryConfig
    clock: Clock
    broker: Broker | None = None
    shared: dict[str, Any] = field(default_factory=dict)


@final
class BrokerSpec(Struct, frozen=True, kw_only=True):
    """A broker by name. ``build`` imports what it needs, opens nothing, and is called once per app."""

    name: str
    build: Callable[[Place], Broker]
    schemes: tuple[str, ...] = ()


@final
class BackendSpec(Struct, frozen=True, kw_only=True):
    """A backend by name; as `BrokerSpec`."""

    name: str
    build: Callable[[Place], Backend]
    schemes: tuple[str, ...] = ()


@final
class SerializerSpec(Struct, frozen=True, kw_only=True):
    """A serializer by its content type."""

    content_type: str
    build: Callable[[], Serializer]


@final
class ComponentSpec(Struct, frozen=True, kw_only=True):
    """A typed service: what ``app.require(protocol)`` returns, built when first required."""

    protocol: type
    name: str
    build: Callable[[App], Any]


@final
class OptionSpec(Struct, frozen=True, kw_only=True):
    """An option that ``@app.task(...)`` takes because a plugin reads it (from ``task.options_of_task.extra``)."""

    name: str
    type: type  # noqa: A003 - what it is called everywhere
    default: Any = None


class FindingLevel(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@final
class Finding(Struct, frozen=True, kw_only=True):
    """One thing that ``chicory doctor`` has to say: what it is, and how to mend it."""

    level: FindingLevel
    what: str
    fix: str = ""

    @classmethod
    def ok(cls, what: str) -> Finding:
        """Nothing is wrong with *what* was looked at."""
        return cls(level=FindingLevel.OK, what=what)

    @classmethod
    def warning(cls, what: str, fix: str) -> Finding:
        """It works, and may not always."""
        return cls(level=FindingLevel.WARNING, what=what, fix=fix)

    @classmethod
    def error(cls, what: str, fix: str) -> Finding:
        """It does not work."""
        return cls(level=FindingLevel.ERROR, what=what, fix=fix)


DoctorCheck = Callable[[], Awaitable[Sequence[Finding]]]


def plugin_options(
    function: Callable[..., Any], given: Mapping[str, Any], specs: Mapping[str, OptionSpec], others: Collection[str]
) -> dict[str, Any]:
    """The options of a task that plugins read: *given*, over their defaults. *others* are the core's, for the hint.

    Raises:
        TaskDefinitionError: no plugin knows an option, or it takes another type.
    """
    name = getattr(function, "__qualname__", repr(function))
    for key, value in given.items():
        spec = specs.get(key)
        if spec is None:
            near = nearest(key, (*sorted(others), *specs))
            hint = f"did you mean {near!r}?" if near else "no plugin that is loaded reads it"
            raise TaskDefinitionError(name, f"unknown option {key!r}: {hint}")
        if not isinstance(value, spec.type):
            raise TaskDefinitionError(name, f"option {key!r} takes {spec.type.__name__}, not {type(value).__name__}")
    return {**{spec.name: spec.default for spec in specs.values()}, **given}
