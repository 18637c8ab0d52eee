"""What chicory finds under the entry point ``otel``."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any, final
from weakref import WeakKeyDictionary

from opentelemetry import trace

from chicory.errors import PluginNotFoundError
from chicory.plugin import (
    App,
    ChildContext,
    DoctorCheck,
    ExecuteMiddleware,
    Lifespan,
    Listener,
    LogFacts,
    PluginSettings,
    PublishMiddleware,
    SettleObserver,
    Stage,
    WorkerView,
    hookimpl,
)
from chicory_otel import conventions as names
from chicory_otel.checks import Checks
from chicory_otel.children import child_context
from chicory_otel.instruments import instruments
from chicory_otel.life import life, listener
from chicory_otel.logs import facts
from chicory_otel.processing import ProcessTracing
from chicory_otel.publishing import PublishTracing
from chicory_otel.settings import OtelConfig
from chicory_otel.settling import Settling

if TYPE_CHECKING:
    from collections.abc import MutableMapping

CHICORY_API = (1, 0)
_NAME = "otel"


@final
class Telemetry:
    """What the layers of one app have in common."""

    def __init__(self, app: App) -> None:
        self.settings = OtelConfig()
        self.instruments = instruments()
        self.place = _place(app)
        self.tracer = trace.get_tracer("chicory_otel", schema_url=names.SCHEMA_URL)
        self.settling = Settling(self.tracer, self.instruments, self.place, semconv=self.settings.semconv_metrics)


_apps: MutableMapping[Any, Telemetry] = WeakKeyDictionary()


def _of(app: App) -> Telemetry:
    if app not in _apps:
        _apps[app] = Telemetry(app)
    return _apps[app]


def _place(app: App) -> dict[str, str | int]:
    """The attributes that every span has."""
    address = app.broker_twin().address
    system = names.system_of(address)
    place: dict[str, str | int] = {names.SYSTEM: system, **names.server_of(address)}
    with contextlib.suppress(PluginNotFoundError, AttributeError):  # a broker may have no section, or no groups
        place[names.CONSUMER_GROUP] = getattr(app.config.broker, system).consumer_group
    return place


@hookimpl
def chicory_settings() -> type[PluginSettings]:
    return OtelConfig


@hookimpl
def chicory_lifespan(app: App, role: str, worker: WorkerView | None) -> Lifespan | None:
    if role == "client":
        return None  # whoever instruments a program that sends flushes at its end
    telemetry = _of(app)
    return life(app, worker, telemetry.instruments, telemetry.settings)


@hookimpl
def chicory_event_sinks(app: App) -> list[Listener]:
    telemetry = _of(app)
    return [listener(telemetry.instruments, telemetry.settings)]


@hookimpl
def chicory_log_facts(app: App) -> list[LogFacts]:
    return [partial(facts, _of(app).settling.span_of)]


@hookimpl
def chicory_publish_middleware(app: App) -> list[PublishMiddleware]:
    telemetry = _of(app)
    layer = PublishTracing(telemetry.tracer, telemetry.instruments, telemetry.place, semconv=telemetry.settings.semconv_metrics)
    return [PublishMiddleware(stage=Stage.OBSERVE, name=_NAME, layer=layer)]


@hookimpl
def chicory_execute_middleware(app: App) -> list[ExecuteMiddleware]:
    telemetry = _of(app)
    layer = ProcessTracing(
        telemetry.tracer,
        telemetry.instruments,
        telemetry.settling,
        telemetry.place,
        app.clock,
        mode=telemetry.settings.trace_mode,
        semconv=telemetry.settings.semconv_metrics,
    )
    return [ExecuteMiddleware(stage=Stage.OBSERVE, name=_NAME, layer=layer)]


@hookimpl
def chicory_settle_observers(app: App) -> list[SettleObserver]:
    return [_of(app).settling]


@hookimpl
def chicory_child_contexts(app: App) -> list[ChildContext]:
    return [child_context(_of(app).instruments.failures)]


@hookimpl
def chicory_doctor() -> list[DoctorCheck]:
    return [Checks(OtelConfig())]
