"""Time in the file: whole microseconds since the epoch, exact through SQL and JSON, where floats are not."""

from __future__ import annotations

from datetime import UTC, datetime

__all__ = ["moment", "of_moment", "span"]

_MICRO = 1_000_000


def moment(when: datetime) -> int:
    """A datetime as the file has it.

    >>> of_moment(moment(datetime(2026, 1, 1, 12, 0, 0, 123457, tzinfo=UTC))).isoformat()
    '2026-01-01T12:00:00.123457+00:00'
    """
    return round(when.timestamp() * _MICRO)


def of_moment(value: int) -> datetime:
    """The aware UTC datetime of a moment in the file."""
    return datetime.fromtimestamp(value / _MICRO, UTC)


def span(seconds: float) -> int:
    """A number of seconds as the file has it."""
    return round(seconds * _MICRO)
