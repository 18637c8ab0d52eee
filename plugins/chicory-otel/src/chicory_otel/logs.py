"""Which trace, and which task, a line of a log belongs to."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any, final

from opentelemetry import trace

from chicory.plugin import current_attempt

__all__ = ["TraceFilter", "add_trace", "facts"]

_NAMES = ("trace_id", "span_id", "task_id", "task", "retries", "queue", "worker")


def facts() -> dict[str, object]:
    """What is known of the code that asks: ``trace_id``, ``span_id`` (hex), and of its task what can be said."""
    found: dict[str, object] = {}
    span = trace.get_current_span().get_span_context()
    if span.is_valid:
        found["trace_id"], found["span_id"] = f"{span.trace_id:032x}", f"{span.span_id:016x}"
    attempt = current_attempt.get()
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
