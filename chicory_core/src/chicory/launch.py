"""What the command line decided before it imports the app: it outranks everything the app itself says."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, final

from msgspec import Struct, field

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Launch", "current_launch", "launching"]


@final
class Launch(Struct, frozen=True, kw_only=True):
    """Options that were given on the command line; what was not given is None or empty."""

    broker: str | None = None
    backend: str | None = None
    plugins: tuple[str, ...] = ()
    worker: dict[str, Any] = field(default_factory=dict)


_NOTHING = Launch()
_current: ContextVar[Launch] = ContextVar("chicory_launch", default=_NOTHING)


def current_launch() -> Launch:
    """The launch under way; an empty one outside of the command line."""
    return _current.get()


@contextmanager
def launching(launch: Launch) -> Iterator[None]:
    """Apps and workers made inside see *launch*."""
    token = _current.set(launch)
    try:
        yield
    finally:
        _current.reset(token)
