"""Structured logs: events are constants, facts are keywords, through the stdlib's ``logging`` so that hosts stay in charge."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any

import structlog

from chicory.middleware import current_attempt

if TYPE_CHECKING:
    from collections.abc import Iterable, MutableMapping

    from chicory.offers import LogFacts

__all__ = ["add_attempt", "add_facts", "configure_logs", "get_logger", "learn_facts"]

ROOT = "chicory"


def add_attempt(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: adds which task the running code belongs to, if any."""
    attempt = current_attempt.get()
    if attempt is not None and attempt.message is not None:
        event.setdefault("task_id", attempt.message.id)
        event.setdefault("task", attempt.message.name)
        event.setdefault("queue", attempt.delivery.envelope.queue)
        event.setdefault("retries", attempt.message.retries)
    return event


_facts: list[LogFacts] = []


def learn_facts(sources: Iterable[LogFacts]) -> None:
    """From now on ask these too, for each event that is written in this process."""
    _facts.extend(source for source in sources if source not in _facts)


def add_facts(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: adds what the sources that were learnt say of the code that logs."""
    for source in _facts:
        try:
            found = source()
        except Exception as error:  # noqa: BLE001 - the edge of a plugin's code: an event is not lost for what it cannot say
            event.setdefault("facts_missing", type(error).__qualname__)
            continue
        for name, value in found.items():
            event.setdefault(name, value)
    return event


_SHARED: list[Any] = [
    structlog.contextvars.merge_contextvars,
    add_attempt,
    add_facts,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


class _Output:
    """How an event leaves structlog: as text that any handler can print, until `configure_logs` installs a formatter."""

    is_formatted_later = False
    _as_text = structlog.processors.LogfmtRenderer(key_order=["event"], bool_as_flag=False)

    def __call__(self, logger: Any, method: str, event: MutableMapping[str, Any]) -> Any:
        if self.is_formatted_later:
            return structlog.stdlib.ProcessorFormatter.wrap_for_formatter(logger, method, event)
        trace = event.pop("exception", None)
        for known_to_the_record in ("level", "logger", "timestamp"):
            event.pop(known_to_the_record, None)
        text = self._as_text(logger, method, event)
        return f"{text}\n{trace}" if trace else text


_output = _Output()


def get_logger(name: str, **facts: Any) -> structlog.stdlib.BoundLogger:
    """A logger under ``chicory.`` with *facts* bound to it; silent below WARNING until a host configures logging."""
    logger: structlog.stdlib.BoundLogger = structlog.wrap_logger(
        logging.getLogger(f"{ROOT}.{name}"),
        processors=[
            structlog.stdlib.filter_by_level,
            *_SHARED,
            structlog.processors.format_exc_info,
            _output,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
        **facts,
    )
    return logger


def configure_logs(level: str, style: str) -> None:
    """Send all logs of this process to standard error: JSON lines, or for people (``style`` is json, console or auto).

    For processes that are chicory's own: workers started by the command line. Libraries leave logging alone.
    """
    for_people = style == "console" or (style == "auto" and sys.stderr.isatty())
    renderer: Any = structlog.dev.ConsoleRenderer() if for_people else structlog.processors.JSONRenderer()
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*_SHARED, structlog.processors.format_exc_info],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
    )
    _output.is_formatted_later = True
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
