"""An SDK for a worker's process, from the ``OTEL_*`` variables that OpenTelemetry specifies.

Only where nobody has set one up: whoever instruments a program decides about it. Samplers, limits, batching and resource are
read by the SDK itself from its own variables; what is decided here is which exporters there are.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import Any

from opentelemetry import metrics, trace

from chicory.errors import ConfigurationError
from chicory_otel.failing import is_measured, is_traced

__all__ = ["INSTALL", "METRICS", "TRACES", "exporters_wanted", "is_installed", "is_wanted", "set_up"]

TRACES, METRICS = "traces", "metrics"
INSTALL = 'pip install "chicory-otel[otlp]"'
_PROTOCOLS = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}
_LOG = logging.getLogger("chicory.otel")


def exporters_wanted(signal: str, environment: Mapping[str, str]) -> list[str]:
    """The exporters of *signal* (traces or metrics) that *environment* asks for, by the names of their entry points.

    >>> exporters_wanted("traces", {"OTEL_TRACES_EXPORTER": "console,otlp"})
    ['console', 'otlp_proto_http']
    >>> exporters_wanted("metrics", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"})
    ['otlp_proto_http']
    """
    kind = signal.upper()
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return []
    has_address = any(environment.get(f"OTEL_EXPORTER_OTLP_{part}ENDPOINT") for part in ("", f"{kind}_"))
    said = environment.get(f"OTEL_{kind}_EXPORTER", "").strip() or ("otlp" if has_address else "none")
    protocol = environment.get(f"OTEL_EXPORTER_OTLP_{kind}_PROTOCOL") or environment.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    if protocol and protocol not in _PROTOCOLS:
        raise ConfigurationError(f"OTEL_EXPORTER_OTLP_PROTOCOL is {protocol!r}: write one of {', '.join(_PROTOCOLS)}")
    otlp = _PROTOCOLS[protocol or "http/protobuf"]
    exporters = [name.strip() for name in said.split(",") if name.strip() not in ("", "none")]
    return [otlp if name == "otlp" else name for name in exporters]


def is_wanted(environment: Mapping[str, str], *, setup: bool | None) -> bool:
    """Whether an SDK is to be set up: as *setup* says, else where a variable names an exporter."""
    if setup is not None:
        return setup
    return bool(exporters_wanted(TRACES, environment) or exporters_wanted(METRICS, environment))


def is_installed() -> bool:
    """Whether there is an SDK to set up."""
    return find_spec("opentelemetry.sdk") is not None


def set_up(worker_id: str, *, is_asked: bool) -> bool:
    """Set up tracing and metrics as the environment says; whether anything was.

    Raises:
        ConfigurationError: an exporter is not installed, or the SDK is not and *is_asked* says that it must be.
    """
    if not is_installed():
        if is_asked:
            raise ConfigurationError(f"CHICORY_OTEL_SETUP is true, and there is no SDK: {INSTALL}")
        _LOG.warning("event=otel_sdk_missing hint=%s", INSTALL)
        return False
    tracing, measuring = is_traced.ask(), is_measured.ask()
    resource = _resource(worker_id)
    made = False
    if not tracing and (names := exporters_wanted(TRACES, os.environ)):
        trace.set_tracer_provider(_tracer_provider(names, resource))
        made = is_traced.ask()
    if not measuring and (names := exporters_wanted(METRICS, os.environ)):
        metrics.set_meter_provider(_meter_provider(names, resource))
        made = is_measured.ask() or made
    return made


def _resource(worker_id: str) -> Any:
    from opentelemetry.sdk.resources import SERVICE_INSTANCE_ID, Resource  # noqa: PLC0415 - an extra

    is_said = SERVICE_INSTANCE_ID in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    return Resource.create() if is_said else Resource.create({SERVICE_INSTANCE_ID: worker_id})


def _tracer_provider(names: list[str], resource: Any) -> trace.TracerProvider:
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - an extra
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 - an extra

    # Not shut down at exit: that waits for a collector that is gone. The end of a worker flushes, and has a deadline.
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    for name in names:
        provider.add_span_processor(BatchSpanProcessor(_load(TRACES, name)()))
    return provider


def _meter_provider(names: list[str], resource: Any) -> metrics.MeterProvider:
    from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415 - an extra
    from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader  # noqa: PLC0415 - an extra

    readers = []
    for name in names:
        kind = _load(METRICS, name)
        readers.append(kind() if issubclass(kind, MetricReader) else PeriodicExportingMetricReader(kind()))
    return MeterProvider(metric_readers=readers, resource=resource, shutdown_on_exit=False)


def _load(signal: str, name: str) -> Any:
    found = {entry.name: entry for entry in entry_points(group=f"opentelemetry_{signal}_exporter")}
    if name not in found:
        known = f"there are {', '.join(sorted(found))}" if found else "there is none"
        fix = INSTALL if name == "otlp_proto_http" else f"{known}; install the package that has it"
        raise ConfigurationError(f"OTEL_{signal.upper()}_EXPORTER wants {name!r}, which no package here offers: {fix}")
    return found[name].load()
