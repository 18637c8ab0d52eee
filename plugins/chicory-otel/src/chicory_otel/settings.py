"""The settings of the plugin. How and where to export is said by the ``OTEL_*`` variables that every SDK reads."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar, final

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from chicory.plugin import PluginSettings, settings_from

__all__ = ["OtelConfig", "TraceMode"]


class TraceMode(StrEnum):
    """How the span of a try hangs together with the span that sent it. It is linked to that in any case."""

    AUTO = "auto"
    """Its child, unless it was put off by more than a minute: see `chicory_otel.rules.begins_trace`."""
    PARENT = "parent"
    """Its child always."""
    LINK = "link"
    """The root of a trace of its own always."""


@final
class OtelConfig(PluginSettings):
    """``CHICORY_OTEL_*``."""

    model_config: ClassVar[SettingsConfigDict] = settings_from("otel")

    trace_mode: TraceMode = TraceMode.AUTO
    setup: bool | None = None
    """Set an SDK up in workers and their children, unless the code has done so; None: where ``OTEL_*`` names an exporter."""
    semconv_metrics: bool = False
    """Record the metrics of the semantic conventions too."""
    sample_seconds: float = Field(default=10.0, gt=0)
    """How often the one worker that samples queues asks for their depth."""
    flush_seconds: float = Field(default=3.0, gt=0, lt=4)
    """How long the end of a worker, or of a child, waits for what is still to be exported. A child has four seconds to end."""
