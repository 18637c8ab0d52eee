"""Which trace, and which task, a line of a log belongs to."""

from __future__ import annotations

import logging
from collections.abc import Callable, MutableMapping
from typing import Any, final

from opentelemetry import trace
from opentelemetry.trace import SpanContext

from chicory.plugin import current_attempt

__all__ = ["TraceFilter", "add_trace", "facts"]

_NAMES = ("trace_id", "span_id", "task_id", "task", "retries", "queue", "worker")


def facts(span_of: Callable[[str], SpanContext | None] | None = None) -> dict[str, object]:
    """What is known of the code that asks: ``trace_id``, ``span_id`` (hex), and of its task what can be said.

    *span_of* knows the span of a delivery by its receipt, for what is logged about a try when its span is not current any more.
    """
    found: dict[str, object] = {}
    span: SpanContext | None = trace.get_current_span().get_span_context()
    attempt = current_attempt.get()
    if span is not None and not span.is_valid:
        span = span_of(attempt.delivery.receipt) if attempt is not None and span_of is not None else None
    if span is not None:
        found["trace_id"], found["span_id"] = f"{span.trace_id:032x}", f"{span.span_id:016x}"
    if attempt is not None:
        envelope = attempt.delivery.envelope
        found |= {"task_id": envelope.id, "task": attempt.task_name, "queue": envelope.queue, "worker": attempt.worker_id}
        found["retries"] = attempt.message.retries if attempt.message is not None else 0
    return found


def add_trace(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: adds `facts` to each event that has none of that name."""
    for name, value in facts().items():
        event.setdefault(name, value)
    return event


@final
class TraceFilter(logging.Filter):
    """A filter for handlers of the stdlib: gives each record the attributes that a format may name, empty where unknown."""

    def filter(self, record: logging.LogRecord) -> bool:
        known = facts()
        for name in _NAMES:
            if not hasattr(record, name):
                setattr(record, name, known.get(name, ""))
        return True
