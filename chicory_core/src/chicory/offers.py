"""What plugins offer: small values that hooks return, and the core collects once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, final

from msgspec import Struct, field

from chicory.backend import Backend
from chicory.broker import Broker
from chicory.clock import Clock
from chicory.config import ChicoryConfig
from chicory.errors import TaskDefinitionError, nearest
from chicory.message import Event, Settled, Settlement, WorkerStats
from chicory.serializer import Serializer

if TYPE_CHECKING:
    from collections.abc import Collection

    from chicory.config import WorkerConfig
    from chicory.task import Task

__all__ = [
    "App",
    "BackendSpec",
    "BrokerSpec",
    "ChildContext",
    "ComponentSpec",
    "DoctorCheck",
    "EventSink",
    "Finding",
    "FindingLevel",
    "Lifespan",
    "Listener",
    "LogFacts",
    "OptionSpec",
    "Place",
    "SerializerSpec",
    "SettleObserver",
    "SettledBatch",
    "WorkerView",
    "plugin_options",
]

T = TypeVar("T")

EventSink = Callable[[Event], None]
"""Called on the event loop for each change of state; must be quick, and must not raise."""
Lifespan = AbstractAsyncContextManager[object]
LogFacts = Callable[[], Mapping[str, object]]
"""What a log event is to say of the code that logs it; called there, for each event that is written."""


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


class WorkerView(Protocol):
    """What the lifespan of a worker sees of it."""

    @property
    def worker_id(self) -> str: ...
    @property
    def config(self) -> WorkerConfig: ...
    def get_stats(self) -> WorkerStats:
        """What it does right now, without I/O; from any thread."""
        ...


@final
class Listener(Struct, frozen=True, kw_only=True):
    """A sink for events of some *kinds*: where nobody else wants them, the others are not even made."""

    kinds: frozenset[str]
    sink: EventSink


@final
class SettledBatch(Struct, frozen=True, kw_only=True):
    """One try of a worker to settle: what was sent, and within how many *seconds* it was answered, or failed with *error*.

    ``answers`` stand in the order of ``settlements``, and are empty after an error: the same ones are sent again then. Both are
    empty where only a result could not be stored.
    """

    settlements: Sequence[Settlement] = ()
    answers: Sequence[Settled] = ()
    seconds: float
    error: Exception | None = None


SettleObserver = Callable[[SettledBatch], None]
"""Called on the event loop after each try to settle; must be quick, and one that raises is logged."""


@final
class ChildContext(Struct, frozen=True, kw_only=True):
    """A context that goes with a task into its child process, under its *name*.

    ``pack`` is called in the worker, where the task would run, and says what is to cross. ``enter`` is called with that in the
    child, and what it returns is entered around the call. An exception in either is the attempt's error.
    """

    name: str
    pack: Callable[[], dict[str, str]]
    enter: Callable[[Mapping[str, str]], AbstractContextManager[object]]


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
