"""What goes wrong in here harms no task: it is counted, and said once."""

from __future__ import annotations

import logging
from typing import final

from opentelemetry import metrics, trace

__all__ = ["Failures", "has_sdk"]

_API = ("opentelemetry.trace", "opentelemetry.metrics")


def has_sdk() -> tuple[bool, bool]:
    """Whether somebody has set up tracing, and metrics: what the API itself brings does nothing."""
    providers = trace.get_tracer_provider(), metrics.get_meter_provider()
    tracing, measuring = (not type(provider).__module__.startswith(_API) for provider in providers)
    return tracing, measuring


@final
class Failures:
    """Counts what failed, by place and class; the first of each is logged."""

    def __init__(self) -> None:
        self.counts: dict[tuple[str, str], int] = {}
        self._log = logging.getLogger("chicory.otel")

    def note(self, place: str, error: Exception) -> None:
        """*error* was raised at *place*. Its text is not logged: it may quote what it was given."""
        key = place, type(error).__qualname__
        self.counts[key] = self.counts.get(key, 0) + 1
        if self.counts[key] == 1:
            self._log.warning("event=otel_failed place=%s error_type=%s", *key)
