"""The app: wires configuration, plugins, broker, backend and tasks together."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, cast, final, overload

import pydantic

from chicory import portal
from chicory.broker import QueueBrowser
from chicory.builtin import BUILTINS
from chicory.choice import UNSET, Choice, Unset
from chicory.client import Client, Connection, Outgoing
from chicory.clock import SYSTEM_CLOCK, Clock
from chicory.codec import Arguments
from chicory.config import ChicoryConfig, installed_sections, known_variables
from chicory.errors import (
    BackendNotConfiguredError,
    CapabilityError,
    ConfigurationError,
    PluginNotFoundError,
)
from chicory.events import listening, tell
from chicory.facade import AppBackend, AppBroker
from chicory.launch import current_launch
from chicory.message import DEFAULT_QUEUE, DeliveryMode, ValidationMode
from chicory.middleware import in_order
from chicory.offers import plugin_options
from chicory.options import CallOptions, TaskOptions, message_for, options_for
from chicory.plugins import Plugins
from chicory.result import AsyncResult
from chicory.settings import readable, warn_of_unknown
from chicory.task import AsyncTask, Call, SyncTask, Task, TaskRegistry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
    from datetime import datetime
    from types import TracebackType
    from typing import Concatenate

    from chicory.backend import Backend
    from chicory.broker import Broker
    from chicory.context import TaskContext
    from chicory.message import BackendType, BrokerType, Event, TaskMessage
    from chicory.offers import EventSink, Listener, WorkerView
    from chicory.retry import RetryPolicy
    from chicory.serializer import Serializer

__all__ = ["Chicory"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


@final
class Chicory:
    """An application: where its messages go, what keeps its results, and its tasks. Making one opens nothing.

    *broker* and *backend* take a member of `BrokerType`, a name that a plugin offers, a URL, or an object. Left out, they come
    from *config*, the environment, ``.env``, ``pyproject.toml``, or the embedded default. ``backend=None``: keep no results.

    Raises:
        ConfigurationError: a setting does not fit; the text names its variable.
        PluginError: a plugin that is needed is missing, broken, or in conflict with another.
    """

    def __init__(
        self,
        *,
        broker: BrokerType | str | Broker | Unset = UNSET,
        backend: BackendType | str | Backend | Unset | None = UNSET,
        config: ChicoryConfig | None = None,
        validation_mode: ValidationMode | None = None,
        delivery_mode: DeliveryMode | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.launch = launch = current_launch()
        """What the command line decided for this app."""
        self.clock = clock
        self.config = _configure(config, validation_mode=validation_mode, delivery_mode=delivery_mode)
        """All settings, as this app uses them. A config object that was handed in is not changed."""
        self.plugins = Plugins((*self.config.plugins, *launch.plugins), builtins=BUILTINS)
        """The plugins of this app; iterating gives one ``PluginInfo`` each."""
        self._warn_of_unknown_settings()
        chosen = Choice(self.plugins, self.config, launch, clock).make(broker, backend)
        self._broker, self._backend = chosen.broker, chosen.backend
        self.result_ttl = chosen.result_ttl
        """Seconds for which a result is kept after its task has ended."""
        self.serializers: Mapping[str, Serializer]
        self.serializers, self.serializer = self._read_serializers()
        self._registry = TaskRegistry()
        self._option_specs = self.plugins.options(_TASK_OPTIONS)
        self._components: dict[type, Any] = {}
        self._clients: dict[asyncio.AbstractEventLoop, Client] = {}
        self._pid = os.getpid()
        self.broker = AppBroker(self, address=chosen.broker.address, capabilities=chosen.broker.capabilities)
        """The broker, as users see it."""
        self.backend = AppBackend(self, address=chosen.backend.address) if chosen.backend is not None else None
        """The result backend, as users see it; None if no results are kept."""
        self.plugins.collect("chicory_configure", app=self)
        self._outgoing = self._compose_outgoing()

    def __repr__(self) -> str:
        return f"<Chicory on {self.broker.address}, {len(self._registry)} tasks>"

    # --- tasks ---------------------------------------------------------------------------------

    @overload
    def task(self, function: Callable[Concatenate[TaskContext, P], Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...  # type: ignore[overload-overlap] # the first match wins
    @overload
    def task(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...  # type: ignore[overload-overlap] # the first match wins
    @overload
    def task(self, function: Callable[Concatenate[TaskContext, P], R], /) -> SyncTask[P, R]: ...
    @overload
    def task(self, function: Callable[P, R], /) -> SyncTask[P, R]: ...
    @overload
    def task(
        self,
        /,
        *,
        name: str | None = None,
        queue: str | None = None,
        retry_policy: RetryPolicy | None = None,
        timeout: float | None = None,
        priority: int | None = None,
        expires: float | None = None,
        delivery_mode: DeliveryMode | None = None,
        validation_mode: ValidationMode | None = None,
        ignore_result: bool | None = None,
        execution: str | None = None,
        **extra: Any,
    ) -> _Decorator: ...
    def task(self, function: Any = None, /, **options: Any) -> Any:
        """Register a function as a task: bare, or with options.

        *timeout* and *expires* are seconds; *priority* is 0 to 9, 9 first; *execution* is how a sync function runs.
        What is not given is as the app says. Plugins may add options.

        Raises:
            TaskDefinitionError: the function or an option does not work out; the text says why.
            DuplicateTaskError: another function has that name already.
        """
        names = sys._getframe(1).f_locals  # noqa: SLF001 - for annotations that name types local to a function
        if function is not None:
            return self._register(function, options, names)
        return lambda later: self._register(later, options, names)

    def _register(self, function: Callable[..., Any], given: Mapping[str, Any], names: Mapping[str, Any]) -> Task[..., Any]:
        known = {key: value for key, value in given.items() if key in _TASK_OPTIONS}
        extra = {key: value for key, value in given.items() if key not in _TASK_OPTIONS}
        defaults = TaskOptions(
            name="?",
            delivery_mode=self.config.delivery_mode,
            validation_mode=self.config.validation_mode,
            extra=plugin_options(function, extra, self._option_specs, _TASK_OPTIONS),
        )
        options = options_for(function, defaults, known)
        kind = AsyncTask if options.execution == "async" else SyncTask
        task: Task[..., Any] = kind(function, options, self, names)
        self._registry.add(task)
        self.plugins.collect("chicory_task_registered", app=self, task=task)
        return task

    @property
    def registry(self) -> TaskRegistry:
        """The registered tasks, with the errors of looking one up."""
        return self._registry

    @property
    def tasks(self) -> Mapping[str, Task[..., Any]]:
        """The registered tasks by name; to read."""
        return self._registry

    def get_task(self, name: str) -> Task[..., Any]:
        """The task of that name; raises ``TaskNotFoundError`` with the nearest one."""
        return self._registry.find(name)

    async def send_task(
        self,
        name: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        queue: str | None = None,
        countdown: float | None = None,
        eta: datetime | None = None,
        priority: int | None = None,
        expires: float | datetime | None = None,
        task_id: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncResult[Any]:
        """Send a task by name, without importing its code; the options are those of ``Task.options``.

        A task that is registered here checks its arguments and lends its options; otherwise its worker does.
        """
        options = CallOptions(
            queue=queue, countdown=countdown, eta=eta, priority=priority, expires=expires, task_id=task_id, headers=headers
        )
        task = self._registry.get(name)
        if task is not None:
            call = task.call(options, args, kwargs or {})
        else:
            message = message_for(TaskOptions(name=name, queue=DEFAULT_QUEUE), options, args, kwargs or {}, self.clock.now())
            call = Call(message=message, arguments=self.arguments_of(message))
        await self.send((call,))
        return AsyncResult(call.message.id, self.results, ours=True)

    # --- connection ----------------------------------------------------------------------------

    async def connect(self) -> None:
        """Open broker and backend for the running event loop. Safe to repeat; the first ``delay`` does it by itself.

        Raises:
            BrokerConnectionError, BackendConnectionError: the server did not answer.
        """
        await self.client()

    async def disconnect(self) -> None:
        """Send what waits to be sent, and close what this event loop opened. Safe to repeat."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.close()

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.disconnect()

    async def client(self) -> Client:
        """The opened client of the running event loop."""
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None or self._pid != os.getpid():
            self._forget_dead_clients()
            client = Client(self.connection(), self._outgoing, lambda: self.lifespan("client"))
            self._clients[loop] = client
        if not client.is_open:
            await client.open()
        return client

    def connection(self) -> Connection:
        """A new, unopened connection to broker and backend, for an event loop of its own."""
        return Connection(self._broker.twin(), self._backend.twin() if self._backend is not None else None)

    def broker_twin(self) -> Broker:
        """An unopened broker for an event loop of its own."""
        return self._broker.twin()

    def backend_twin(self) -> Backend:
        """An unopened backend for an event loop of its own; there must be one."""
        if self._backend is None:
            raise BackendNotConfiguredError
        return self._backend.twin()

    def _forget_dead_clients(self) -> None:
        """Clients of loops that are closed, or of the process this one was forked from, cannot be closed any more."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._clients = {}
        self._clients = {loop: client for loop, client in self._clients.items() if not loop.is_closed()}

    @asynccontextmanager
    async def lifespan(self, role: str, worker: WorkerView | None = None) -> AsyncIterator[None]:
        """What plugins wrap around the life of a client or worker, entered in order of their names."""
        async with AsyncExitStack() as stack:
            for _, manager in self.plugins.collect("chicory_lifespan", app=self, role=role, worker=worker):
                await stack.enter_async_context(manager)
            yield

    @property
    def clients(self) -> Mapping[asyncio.AbstractEventLoop, Client]:
        """The clients that were opened, by event loop; to read."""
        return self._clients

    @contextmanager
    def replacing(self, broker: Broker, backend: Backend | None, clock: Clock) -> Iterator[None]:
        """This app on other parts for a while, and then as it was before: for tests.

        Plugins are asked for their layers anew. Whoever replaces closes the `clients` that were opened meanwhile.
        """
        before = dict(vars(self))
        try:
            self.clock, self._broker, self._backend = clock, broker, backend
            self._clients, self._components = {}, {}
            self.broker = AppBroker(self, address=broker.address, capabilities=broker.capabilities)
            self.backend = AppBackend(self, address=backend.address) if backend is not None else None
            self._outgoing = self._compose_outgoing()
            yield
        finally:
            vars(self).update(before)

    # --- what tasks and facades ask of their app -------------------------------------------------

    @property
    def results(self) -> AppBackend | None:
        return self.backend

    async def send(self, calls: Sequence[Call]) -> None:
        """Publish calls that are checked and written already."""
        await (await self.client()).send(calls)

    def run_sync(self, coroutine: Coroutine[Any, Any, T], *, blocking: str = "run_sync()", instead: str = "await ...") -> T:
        """Run a coroutine of this app from code without event loop, on the one portal thread of this process.

        Raises:
            SyncCallError: an event loop runs on this thread.
        """
        return portal.run_sync(coroutine, blocking=blocking, instead=instead)

    def owner(self) -> Chicory:
        return self

    def arguments_of(self, message: TaskMessage) -> Arguments:
        """The bytes of a message's arguments: checked and written by its task if that is registered here, else as they are."""
        task = self._registry.get(message.name)
        if task is not None:
            check = task.options_of_task.validation_mode.checks_inputs
            return task.signature.encode(message.args, message.kwargs, check=check, serializer=self.serializer)
        data = self.serializer.dumps({"args": list(message.args), "kwargs": dict(message.kwargs)})
        return Arguments(content_type=self.serializer.content_type, data=data)

    def require(self, protocol: type[T]) -> T:
        """The component that implements *protocol*, from the plugin that offers one.

        Raises:
            CapabilityError: the broker in use cannot (for ``QueueBrowser``).
            PluginNotFoundError: no loaded plugin offers it.
        """
        if protocol is QueueBrowser:
            if not self._broker.capabilities.browse:
                raise CapabilityError("looking into queues", self.broker.address, "choose a broker that can browse")
            return cast("T", self.broker)
        if protocol not in self._components:
            specs = [spec for _, offered in self.plugins.collect("chicory_register_components") for spec in offered]
            spec = next((spec for spec in specs if spec.protocol is protocol), None)
            if spec is None:
                known = tuple(sorted(spec.protocol.__name__ for spec in specs))
                raise PluginNotFoundError("component", protocol.__name__, known)
            self._components[protocol] = spec.build(self)
        return cast("T", self._components[protocol])

    def event_sinks(self) -> tuple[EventSink | Listener, ...]:
        """Whom plugins want to be told of events."""
        return self.offered("chicory_event_sinks")

    def offered(self, hook: str) -> tuple[Any, ...]:
        """What all plugins return from a *hook* that takes the app, as one."""
        return tuple(offer for _, offers in self.plugins.collect(hook, app=self) for offer in offers)

    def tell(self, event: Event) -> None:
        """Give *event* to every event sink of the plugins; one that raises is logged."""
        tell(self._sinks, event)

    # --- construction --------------------------------------------------------------------------

    def _warn_of_unknown_settings(self) -> None:
        sections = [entry for entry in installed_sections().values() if self._is_loaded(entry.value)]
        warn_of_unknown(known_variables(self.plugins.settings(sections)))

    def _is_loaded(self, reference: str) -> bool:
        """A section's package is imported already: none is imported only to know its variables."""
        return reference.partition(":")[0].partition(".")[0] in sys.modules

    def _read_serializers(self) -> tuple[dict[str, Serializer], Serializer]:
        offered = self.plugins.serializers()
        wanted = dict.fromkeys((*self.config.accept_content, self.config.serializer))
        for content_type in wanted:
            if content_type not in offered:
                raise PluginNotFoundError("serializer", content_type, tuple(sorted(offered)))
        built = {content_type: offered[content_type][1].build() for content_type in wanted}
        return built, built[self.config.serializer]

    def _compose_outgoing(self) -> Outgoing:
        self._sinks = self.event_sinks()
        return Outgoing(
            layers=tuple(in_order(self.offered("chicory_publish_middleware"))),
            sinks=listening(self._sinks, "task.published"),
            clock=self.clock,
            max_bytes=self.config.max_message_bytes,
            rewrite=self.arguments_of,
        )


class _Decorator:
    """The type of ``@app.task(...)``; at run time it is a plain function."""

    @overload
    def __call__(self, function: Callable[Concatenate[TaskContext, P], Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...  # type: ignore[overload-overlap] # the first match wins
    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...  # type: ignore[overload-overlap] # the first match wins
    @overload
    def __call__(self, function: Callable[Concatenate[TaskContext, P], R], /) -> SyncTask[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> SyncTask[P, R]: ...
    def __call__(self, function: Callable[..., Any], /) -> Any:
        """Register *function*."""


_MODES: dict[str, Callable[[Any], object]] = {"validation_mode": ValidationMode, "delivery_mode": DeliveryMode}
_TASK_OPTIONS = frozenset(TaskOptions.__struct_fields__) - {"extra"}


def _configure(config: ChicoryConfig | None, **arguments: object) -> ChicoryConfig:
    """The settings with the app's own arguments on top; a config object handed in stays as it is."""
    try:
        given = {name: _MODES[name](value) for name, value in arguments.items() if value is not None}
        settings = ChicoryConfig() if config is None else config
        settings = settings.model_copy(update=given)
        _ = settings.broker.url, settings.backend.url
    except pydantic.ValidationError as error:
        raise ConfigurationError(f"settings: {readable(error)}") from error
    except ValueError as error:
        raise ConfigurationError(str(error)) from error
    return settings
