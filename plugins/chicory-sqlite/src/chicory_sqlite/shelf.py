"""Looking into queues without consuming them: statements of an open transaction, on the engine's thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

from chicory.plugin import Envelope, QueuedMessage
from chicory_sqlite.messages import envelope_of
from chicory_sqlite.moments import of_moment
from chicory_sqlite.rows import chunks, fetch_rows, placeholders
from chicory_sqlite.schema import DELAYED, LEASED, READY

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping, Sequence

    from chicory_sqlite.messages import Messages

__all__ = ["Shelf"]

_COLUMNS = "id, hop, rank, due, flags, body, phase"
_STATES = {READY: "ready", DELAYED: "delayed", LEASED: "running"}
_ORDERS = {READY: "rank, due, rowid", DELAYED: "due, rowid", LEASED: "lease, rowid"}


@final
class Shelf:
    """The messages of one file, as a browser sees them."""

    def __init__(self, connection: sqlite3.Connection, messages: Messages) -> None:
        self._connection, self._messages = connection, messages

    def list_messages(self, queue: str, limit: int, after: str | None) -> tuple[list[QueuedMessage], str | None]:
        """A page: ready messages in the order they would be delivered, then delayed, then running ones. Reads only."""
        phase, *position = _read_cursor(after)
        found: list[QueuedMessage] = []
        while phase in _STATES:
            rows = self._page(queue, phase, position, limit - len(found))
            found += [_seen(queue, row) for row in rows]
            if len(found) >= limit:
                return found, _write_cursor(phase, rows[-1][7:])
            phase, position = phase + 1, []
        return found, None

    def _page(self, queue: str, phase: int, position: Sequence[Any], limit: int) -> list[list[Any]]:
        order = _ORDERS[phase]
        beyond = f"AND ({order}) > ({','.join('?' * len(position))})" if position else ""
        rest = f"FROM task WHERE phase = {phase} AND queue = ? {beyond} ORDER BY {order} LIMIT ?"
        return fetch_rows(self._connection, f"{_COLUMNS}, {order}", rest, (queue, *position, limit))

    def get_messages(self, queue: str, ids: Sequence[str]) -> list[QueuedMessage]:
        """Those of *ids* that *queue* holds, in order of their ids. Reads only."""
        found = []
        for part in chunks(sorted(ids)):
            text, parameters = placeholders(part)
            rest = f"FROM task WHERE id IN {text} AND queue = ? AND phase > 0 ORDER BY id"
            found += [_seen(queue, row) for row in fetch_rows(self._connection, _COLUMNS, rest, (*parameters, queue))]
        return found

    def delete_messages(self, queue: str, ids: Sequence[str]) -> list[str]:
        """Remove those of *ids* that wait in *queue*, with their records; which."""
        gone = []
        for part in chunks(ids):
            text, parameters = placeholders(part)
            where = f"WHERE id IN {text} AND queue = ? AND phase IN (1, 2)"
            gone += [row[0] for row in fetch_rows(self._connection, "id", f"FROM task {where}", (*parameters, queue))]
            self._connection.execute(f"DELETE FROM task {where}", (*parameters, queue))  # noqa: S608 - only marks in it
        return gone

    def move(self, queue: str, replacements: Mapping[str, Envelope]) -> set[str]:
        """Replace each id that waits in *queue* by its envelope; which there were. Its record, if any, becomes PENDING."""
        found = [m.envelope for m in self.get_messages(queue, list(replacements)) if m.state != "running"]
        new = replacements
        waiting = {old.id for old in found if new[old.id].id != old.id or new[old.id].hop > old.hop}
        with_record = self._with_record(list(waiting))
        for has_record in (True, False):
            envelopes = [replacements[i] for i in waiting if (i in with_record) is has_record]
            renamed = [i for i in waiting if (i in with_record) is has_record and replacements[i].id != i]
            if renamed:
                self.delete_messages(queue, renamed)
            if envelopes:
                self._messages.publish(envelopes, pending=has_record)
        return waiting

    def _with_record(self, ids: Sequence[str]) -> set[str]:
        found: set[str] = set()
        for part in chunks(ids):
            text, parameters = placeholders(part)
            rest = f"FROM task WHERE id IN {text} AND state IS NOT NULL"
            found |= {row[0] for row in fetch_rows(self._connection, "id", rest, parameters)}
        return found


def _seen(queue: str, row: list[Any]) -> QueuedMessage:
    message_id, hop, rank, due, flags, body, phase = row[:7]
    return QueuedMessage(
        envelope=envelope_of(queue, message_id, hop, rank, due, flags, body),
        state=_STATES[phase],
        since=of_moment(due),
    )


def _write_cursor(phase: int, position: Sequence[Any]) -> str:
    return ",".join(str(part) for part in (phase, *position))


def _read_cursor(cursor: str | None) -> list[int]:
    if cursor is None:
        return [READY]
    return [int(part) for part in cursor.split(",")]
