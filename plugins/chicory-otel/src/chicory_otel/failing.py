"""What goes wrong in here harms no task: it is counted, and said once."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import final

from opentelemetry import metrics, trace

__all__ = ["Failures", "is_measured", "is_traced"]

_API = ("opentelemetry.trace", "opentelemetry.metrics")
_ASK_AGAIN = 1.0
"""Seconds."""


@final
class _Answer:
    """Whether a provider is an SDK's: what the API itself brings does nothing.

    Asked for each message, and the API takes microseconds to say that there is none: so it is asked again after a second only.
    """

    def __init__(self, provider: Callable[[], object]) -> None:
        self._provider = provider
        self._is_sdk = False
        self._ask_at = 0.0

    def __call__(self) -> bool:
        if not self._is_sdk and time.monotonic() >= self._ask_at:
            self._ask_at = time.monotonic() + _ASK_AGAIN
            self._is_sdk = not type(self._provider()).__module__.startswith(_API)
        return self._is_sdk

    def ask(self) -> bool:
        """As calling it, for whoever must know now."""
        self._ask_at = 0.0
        return self()


is_traced = _Answer(trace.get_tracer_provider)
is_measured = _Answer(metrics.get_meter_provider)


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
