"""What ``Worker.healthcheck()`` answers: whether the worker's broker and backend do."""

from __future__ import annotations

from typing import Any, final

from msgspec import Struct

from chicory.errors import ChicoryError

__all__ = ["PartHealth", "WorkerHealth", "health_of"]


@final
class PartHealth(Struct, frozen=True, kw_only=True):
    """Whether the broker, or the backend, answers."""

    connected: bool
    error: str | None = None


@final
class WorkerHealth(Struct, frozen=True, kw_only=True):
    """What ``Worker.healthcheck()`` found out."""

    is_running: bool
    broker: PartHealth
    backend: PartHealth | None
    error: str | None = None


async def health_of(part: Any) -> PartHealth:
    """Whether a broker, or a backend, answers now."""
    try:
        await part.health()
    except ChicoryError as error:
        return PartHealth(connected=False, error=str(error))
    return PartHealth(connected=True)
