"""Telling event sinks what has happened: they only look, and harm nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chicory.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chicory.message import Event
    from chicory.offers import EventSink

__all__ = ["tell"]

_log = get_logger("events")


def tell(sinks: Sequence[EventSink], event: Event) -> None:
    """Give *event* to every sink; one that raises is logged."""
    for sink in sinks:
        try:
            sink(event)
        except Exception as error:  # noqa: BLE001 - the edge of a plugin's code
            _log.exception("event_sink_failed", kind=event.kind, exc_info=error)
