"""OpenTelemetry for chicory: traces through queues, metrics, and logs that name their trace."""

from __future__ import annotations

from chicory_otel.conventions import VERSION as SEMCONV_VERSION
from chicory_otel.logs import TraceFilter, add_trace
from chicory_otel.settings import OtelConfig, TraceMode

__all__ = ["SEMCONV_VERSION", "OtelConfig", "TraceFilter", "TraceMode", "add_trace"]
