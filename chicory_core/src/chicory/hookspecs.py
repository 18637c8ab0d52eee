"""Every hook of chicory, on one page.

Hooks are called while the app is made, when a worker starts, and when the command line is built: never per message. They are
plain functions; what is asynchronous is inside what they return. All of them collect: each plugin's answer counts, and order
comes from stage numbers and names, never from registration. An exception in a hook stops the app or the worker, naming the
plugin. A plugin implements the hooks it needs and leaves out the arguments it does not read.
"""

# A hook spec is a signature and a docstring; pluggy never calls its body.
# mypy: disable-error-code="empty-body"

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from collections.abc import Iterable

    from chicory.middleware import ExecuteMiddleware, PublishMiddleware
    from chicory.offers import (
        App,
        BackendSpec,
        BrokerSpec,
        ChildContext,
        ComponentSpec,
        DoctorCheck,
        EventSink,
        Lifespan,
        Listener,
        LogFacts,
        OptionSpec,
        SerializerSpec,
        SettleObserver,
        WorkerView,
    )
    from chicory.settings import PluginSettings
    from chicory.task import Task

PROJECT = "chicory"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


# --- extension ---------------------------------------------------------------------------------


@hookspec(historic=True)
def chicory_add_hookspecs(manager: pluggy.PluginManager) -> None:
    """Add hooks of a plugin's own with ``manager.add_hookspecs``; called right after the plugins are found."""


@hookspec
def chicory_settings() -> type[PluginSettings]:
    """A plugin's own group of settings, so that its variables are known and misspelt ones are noticed."""


# --- broker, backend, serializer ---------------------------------------------------------------


@hookspec
def chicory_register_brokers() -> Iterable[BrokerSpec]:
    """Brokers by name; two plugins that offer one name are an error that names both distributions."""


@hookspec
def chicory_register_backends() -> Iterable[BackendSpec]:
    """Result backends by name."""


@hookspec
def chicory_register_serializers() -> Iterable[SerializerSpec]:
    """Serializers by content type. A worker decodes only those its configuration enables."""


@hookspec
def chicory_register_components() -> Iterable[ComponentSpec]:
    """Typed services that other plugins, or users, get by ``app.require(Protocol)``."""


# --- lifecycle ---------------------------------------------------------------------------------


@hookspec(historic=True)
def chicory_configure(app: App) -> None:
    """The app is complete but for its tasks; nothing is open. Once per app, in its process."""


@hookspec
def chicory_task_options() -> Iterable[OptionSpec]:
    """Options that ``@app.task(...)`` shall take; unknown ones are refused at registration."""


@hookspec
def chicory_task_registered(app: App, task: Task[..., Any]) -> None:
    """A task was registered. Called at import of the user's module, in every process that imports it."""


@hookspec
def chicory_lifespan(app: App, role: str, worker: WorkerView | None) -> Lifespan | None:
    """An async context manager around the life of a ``client`` (connected app), a ``worker``, or a ``child``.

    *worker* is the worker itself in that role, else None.

    Entered in order of plugin names after the broker is open, left in reverse before it is closed. A child is a process of a
    worker that runs tasks with ``execution="process"``: it opens no broker, and a child that is killed leaves nothing.
    """


@hookspec
def chicory_event_sinks(app: App) -> Iterable[EventSink | Listener]:
    """Callables that get every event of this process, or listeners for some kinds; no sink, no cost."""


@hookspec
def chicory_log_facts(app: App) -> Iterable[LogFacts]:
    """Callables whose facts are added to each log event of a worker that the command line has started, and of its children."""


@hookspec
def chicory_doctor(app: App) -> Iterable[DoctorCheck]:
    """Async checks for ``chicory doctor``, each returning its findings. One that raises becomes a finding itself."""


# --- middleware --------------------------------------------------------------------------------


@hookspec
def chicory_publish_middleware(app: App) -> Iterable[PublishMiddleware]:
    """Layers around publishing; composed once per app."""


@hookspec
def chicory_execute_middleware(app: App) -> Iterable[ExecuteMiddleware]:
    """Layers around execution; composed once per worker."""


@hookspec
def chicory_settle_observers(app: App) -> Iterable[SettleObserver]:
    """Callables that are told of each try of a worker to settle a batch; they only look."""


@hookspec
def chicory_child_contexts(app: App) -> Iterable[ChildContext]:
    """Contexts that go with a task into its child process. Asked for in the worker, and in the child."""


# --- command line ------------------------------------------------------------------------------


@hookspec
def chicory_cli(cli: Any) -> None:
    """Add commands to the ``click.Group`` of ``chicory``. Called when a command line is parsed, before any app exists."""
