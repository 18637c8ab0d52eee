"""A negative control's worker: in it, SQLite's settle, note and renewal take any consumer and delivery for the owner."""

from __future__ import annotations

from chicory_sqlite import messages

_FENCE = "AND task.count = column3 AND task.owner = ? AND task.phase = 3"


def fence_off() -> None:
    for name in ("END", "NOTE", "EXTEND"):
        statement = getattr(messages, name)
        assert statement.count(_FENCE) == 1, f"{name} has another fence now"
        setattr(messages, name, statement.replace(_FENCE, "AND ? IS NOT NULL"))
