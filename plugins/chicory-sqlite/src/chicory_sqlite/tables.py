"""The file and its tables, as an operation sees them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, final

from msgspec import Struct

from chicory_sqlite.messages import Messages
from chicory_sqlite.records import Records
from chicory_sqlite.shelf import Shelf

if TYPE_CHECKING:
    import sqlite3

    from chicory.plugin import Clock
    from chicory_sqlite.settings import Durability

__all__ = ["File", "Tables"]


@final
class File(Struct, frozen=True, kw_only=True):
    """Which file, and how to use it."""

    path: Path
    durability: Durability
    lock_seconds: float
    clock: Clock
    is_relative: bool = False
    """Whether it was named from the working directory."""

    @property
    def address(self) -> str:
        return f"sqlite:///{self.path}"


@final
class Tables:
    """What an operation works on, inside a transaction on the engine's thread."""

    def __init__(self, connection: sqlite3.Connection, clock: Clock) -> None:
        self.messages = Messages(connection, clock)
        self.records = Records(connection, clock)
        self.shelf = Shelf(connection, self.messages)

    def ended(self) -> list[str]:
        """Ids whose record became terminal, or went, since the last `take_news`."""
        return [*self.messages.ended, *self.records.ended]

    def take_news(self) -> tuple[set[str], list[str]]:
        """Queues in which something became ready, and ids that ended: since the last call."""
        news = (self.messages.work, self.ended())
        self.messages.work, self.messages.ended, self.records.ended = set(), [], []
        return news

    def forget(self) -> None:
        """After a rollback, nothing of what was noted has happened."""
        self.take_news()
        self.messages.forget_known()
