"""Telling event sinks what has happened: they only look, and harm nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chicory.logs import get_logger
from chicory.offers import Listener

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chicory.message import Event
    from chicory.offers import EventSink

__all__ = ["listening", "tell"]

_log = get_logger("events")


def listening(sinks: Sequence[EventSink | Listener], *kinds: str) -> tuple[EventSink | Listener, ...]:
    """Those of *sinks* that want events of one of these *kinds*."""
    return tuple(sink for sink in sinks if not isinstance(sink, Listener) or not sink.kinds.isdisjoint(kinds))


def tell(sinks: Sequence[EventSink | Listener], event: Event) -> None:
    """Give *event* to every sink that wants its kind; one that raises is logged."""
    for listener in listening(sinks, event.kind):
        sink = listener.sink if isinstance(listener, Listener) else listener
        try:
            sink(event)
        except Exception as error:  # noqa: BLE001 - the edge of a plugin's code
            _log.exception("event_sink_failed", kind=event.kind, exc_info=error)
