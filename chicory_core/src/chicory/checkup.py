"""What ``chicory doctor`` finds out about an app by looking at it alone: nothing here connects to anything."""

from __future__ import annotations

import inspect
import sys
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from chicory.errors import TaskDefinitionError
from chicory.message import DeliveryMode
from chicory.offers import Finding
from chicory.plugins import CORE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chicory.app import Chicory
    from chicory.task import Task

__all__ = ["APP_CHECKS"]

_SHORT_LEASE = 5.0
_LONG_LEASE = 60.0
_DLQ_PLUGIN = "dlq"
_OF_STORES = {"chicory_register_brokers", "chicory_register_backends", "chicory_settings", "chicory_doctor"}
"""A plugin with no other hooks than these is a broker or a backend."""


def _seconds(value: float) -> str:
    return f"{value:g} s"


# --- tasks -----------------------------------------------------------------------------------------


def names(app: Chicory) -> Iterator[Finding]:
    """How many tasks there are, and functions that have two names."""
    if not app.tasks:
        yield Finding.warning("no task is registered", "import the modules that define tasks in the module that makes the app")
        return
    yield Finding.ok(f"{len(app.tasks)} task{'s' if len(app.tasks) > 1 else ''}")
    by_code: dict[object, list[str]] = {}
    for task in app.tasks.values():
        code = getattr(inspect.unwrap(task.function), "__code__", None)
        place = (code.co_filename, code.co_firstlineno, code.co_name) if code is not None else task.name
        by_code.setdefault(place, []).append(task.name)
    for twice in by_code.values():
        if len(twice) > 1:
            yield Finding.warning(
                f"one function is registered as {' and '.join(sorted(twice))}: its module is imported under two names",
                "import it by one name everywhere, or give the task a name= of its own",
            )


def signatures(app: Chicory) -> Iterator[Finding]:
    """Annotations that cannot be resolved, and parameters without any."""
    for task in app.tasks.values():
        try:
            bare = _without_annotation(task)
        except TaskDefinitionError as error:
            yield Finding.error(str(error), "correct the annotation: each call of this task fails")
            continue
        if bare:
            yield Finding.warning(
                f"{task.name} takes {', '.join(bare)} without annotation: what arrives is plain JSON, and is not checked",
                f"annotate {'it' if len(bare) == 1 else 'them'} ({task.place})",
            )


def _without_annotation(task: Task[..., Any]) -> list[str]:
    """Raises ``TaskDefinitionError`` if the task's annotations name something that there is not."""
    parameters = list(inspect.signature(task.function).parameters.values())
    if task.signature.takes_context:
        parameters = parameters[1:]
    return [p.name for p in parameters if p.annotation is p.empty]


def times(app: Chicory) -> Iterator[Finding]:
    """Declared time-outs against the drain, and the lease against both."""
    worker = app.config.worker
    for task in app.tasks.values():
        options = task.options_of_task
        if options.timeout is not None and options.timeout > worker.shutdown_timeout:
            lost = "is ended as lost" if options.delivery_mode is DeliveryMode.AT_MOST_ONCE else "starts again elsewhere"
            yield Finding.warning(
                f"{task.name} may run for {_seconds(options.timeout)} (its timeout), and a worker that is told to stop waits "
                f"{_seconds(worker.shutdown_timeout)} (shutdown_timeout): what takes longer {lost}",
                "raise shutdown_timeout, and the time that your supervisor waits before it kills; or lower the timeout",
            )
    declared = [task.options_of_task.timeout for task in app.tasks.values()]
    lease = worker.lease_seconds
    if lease < _SHORT_LEASE:
        yield Finding.warning(
            f"lease_seconds is {_seconds(lease)}: a worker that stands still for that long loses what it runs",
            f"use {_seconds(_SHORT_LEASE)} or more: a machine that swaps, or is copied, stops for seconds",
        )
    longest = max((timeout or float("inf") for timeout in declared), default=float("inf"))
    if lease > _LONG_LEASE and lease > longest:
        yield Finding.warning(
            f"lease_seconds is {_seconds(lease)}, and no task runs for longer than {_seconds(longest)}: what a killed worker "
            "had in work comes back later than it would have ended",
            "lower lease_seconds: it is renewed for as long as a task runs, and only says how soon a dead worker is noticed",
        )


def queues(app: Chicory) -> Iterator[Finding]:
    """Queues that tasks go to, and a worker with this configuration does not read."""
    read = app.config.worker.queues
    yield Finding.ok(f"a worker with this configuration reads {', '.join(read)}")
    unread: dict[str, list[str]] = {}
    for task in app.tasks.values():
        if task.options_of_task.queue not in read:
            unread.setdefault(task.options_of_task.queue, []).append(task.name)
    for queue, tasks in sorted(unread.items()):
        yield Finding.warning(
            f"{', '.join(sorted(tasks))} go{'es' if len(tasks) == 1 else ''} to the queue {queue!r}, which it does not read",
            f"start a worker with --queue {queue}, or one with --queue {','.join((*read, queue))}",
        )


# --- what is installed -----------------------------------------------------------------------------


def installation(app: Chicory) -> Iterator[Finding]:
    """Another package in the place of ours, and what makes chicory quick."""
    others = {name for name in packages_distributions().get("chicory", ()) if name != CORE}
    for name in sorted(others):
        yield Finding.error(
            f"the distribution {name!r} installs an import package 'chicory' too: files of one replace those of the other",
            f"pip uninstall {name}, then pip install --force-reinstall {CORE}",
        )
    if sys.platform != "win32" and find_spec("uvloop") is None:
        what = "uvloop is not installed: the standard event loop takes more time for each task"
        yield Finding.warning(what, f"pip install {CORE}[fast]")
    if app.config.worker.use_dead_letter_queue and _DLQ_PLUGIN not in {info.name for info in app.plugins}:
        yield Finding.error(
            "use_dead_letter_queue is set, and the plugin that does it is not installed: no worker will start",
            "pip install chicory-dlq",
        )


def plugins(app: Chicory) -> Iterator[Finding]:
    """Each plugin: its version, and whether it is broken, blocked, or there for nothing."""
    used = _owners_of_stores(app)
    for info in app.plugins:
        title = f"{info.name} {info.version} ({info.distribution})"
        if info.state == "broken":
            fix = f"install versions that fit, or pip uninstall {info.distribution}"
            yield Finding.error(f"{title} cannot be loaded: {info.reason}", fix)
        elif info.state != "active":
            yield Finding.ok(f"{title} is {info.state}: {info.reason}")
        elif info.distribution != CORE:
            is_idle = info.name not in used and _OF_STORES.issuperset(info.offers)
            yield Finding.ok(f"{title}, which nothing here uses" if is_idle else title)


def _owners_of_stores(app: Chicory) -> set[str]:
    """The plugins that offer what this app's broker and backend are."""
    addresses = [app.broker.address, app.backend.address if app.backend is not None else ""]
    schemes = {address.partition(":")[0] for address in addresses}
    brokers, backends = app.plugins.brokers().values(), app.plugins.backends().values()
    offered = [(plugin, spec.schemes) for plugin, spec in brokers] + [(plugin, spec.schemes) for plugin, spec in backends]
    return {plugin for plugin, own in offered if not schemes.isdisjoint(own)}


APP_CHECKS = {
    "tasks": names,
    "signatures": signatures,
    "times": times,
    "queues": queues,
    "installation": installation,
    "plugins": plugins,
}
"""By the name under which their findings are shown."""
