"""Messages in their queues: statements of an open transaction. Everything here runs on the engine's thread."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, final

from chicory.plugin import (
    Delivery,
    Envelope,
    QueueStats,
    ResultRecord,
    Settled,
    Settlement,
    TaskState,
)
from chicory_sqlite.moments import moment, of_moment, span
from chicory_sqlite.rows import chunks, fetch_rows, from_text, placeholders, to_text, values
from chicory_sqlite.schema import DELAYED, LEASED, READY, SETTLED
from chicory_sqlite.statements import END, EXTEND, LOOK, NOTE, OLDEST, PUBLISH, PUBLISH_RECORD

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Sequence

    from chicory.plugin import Clock

__all__ = ["DEDUP_WINDOW", "Messages", "envelope_of", "record_cells"]

DEDUP_WINDOW = 120.0
"""Seconds for which the id of a settled message is remembered where no record of a result remembers it longer."""
DEFAULT_LEASE = 30.0
_DEFAULT_SPAN = span(DEFAULT_LEASE)
_PROMOTE = 500
_STALE = 2
"""A consumer counts as live for this many leases after it was last seen."""
_RAW, _DUE = 1, 2
"""Bits of ``flags``: the body is base64; the envelope named its due time."""
_LEVELS = 9


@final
class Messages:
    """The queues in one file. What a transaction made ready or ended is collected, to be rung after its commit."""

    def __init__(self, connection: sqlite3.Connection, clock: Clock) -> None:
        self._connection, self._clock = connection, clock
        self._known_queues: set[str] = set()
        self._leases: dict[str, float] = {}
        self._reclaim_after = float("-inf")
        self.work: set[str] = set()
        """Queues in which something became ready, or will."""
        self.ended: list[str] = []
        """Task ids whose record became terminal, or went."""

    def now(self) -> int:
        return moment(self._clock.now())

    def longest_lease(self) -> float:
        """The longest lease that this process knows of, in seconds."""
        return max(self._leases.values(), default=DEFAULT_LEASE)

    def reclaim_after(self, monotonic: float) -> None:
        """Take no lease for ended before that moment: the wall clock was set, and its holder must renew first."""
        self._reclaim_after = monotonic

    # --- messages ------------------------------------------------------------------------------

    def publish(self, envelopes: Sequence[Envelope], *, pending: bool) -> None:
        """Insert each envelope unless its id is there at its hop or a higher one; with *pending*, with a record."""
        now = self.now()
        self._announce({envelope.queue for envelope in envelopes})
        for part in chunks([(e.id, e.hop, *self._line(e, now)) for e in envelopes]):
            text, parameters = values(part)
            statement = PUBLISH.format(
                values=text,
                state="'PENDING'" if pending else "NULL",
                hop="column2" if pending else "NULL",
                zero="0" if pending else "NULL",
                record=PUBLISH_RECORD if pending else "",
            )
            self._connection.execute(statement, (*parameters, now))

    def claim(self, queues: Sequence[str], limit: int, owner: str) -> list[Delivery]:
        """Lease up to *limit* ready messages to *owner*, queue by queue."""
        deliveries: list[Delivery] = []
        for queue in queues:
            wanted = min(limit - len(deliveries), 512)
            if wanted > 0 and self._make_ready(queue):
                deliveries += self._lease(queue, wanted, owner)
        return deliveries

    def look(self, queues: Iterable[str]) -> tuple[bool, float]:
        """Whether something can be claimed, and in how many seconds that may next change by itself. Reads only."""
        now, change = self.now(), float("inf")
        for queue in queues:
            is_ready, due, lease = self._connection.execute(LOOK, (queue,) * 3).fetchone()
            change = min(change, *(when for when in (due, lease) if when is not None), float("inf"))
            if is_ready or change <= now:
                return True, 0.0
        return False, (change - now) / span(1)

    def _make_ready(self, queue: str) -> bool:
        is_ready, due, lease = self._connection.execute(LOOK, (queue,) * 3).fetchone()
        now = self.now()
        if due is not None and due <= now:
            self._connection.execute(
                "UPDATE task SET phase = 1 WHERE rowid IN "
                "(SELECT rowid FROM task WHERE phase = 2 AND queue = ? AND due <= ? ORDER BY due LIMIT ?)",
                (queue, now, _PROMOTE),
            )
            is_ready = True
        if lease is not None and lease <= now and self._clock.monotonic() >= self._reclaim_after:
            self._connection.execute(
                "UPDATE task SET phase = 1, owner = NULL, lease = NULL WHERE rowid IN "
                "(SELECT rowid FROM task WHERE phase = 3 AND queue = ? AND lease <= ? LIMIT ?)",
                (queue, now, _PROMOTE),
            )
            is_ready = True
        return bool(is_ready)

    def _lease(self, queue: str, limit: int, owner: str) -> list[Delivery]:
        rows = fetch_rows(
            self._connection,
            "rowid, id, hop, rank, due, count, flags, body",
            "FROM task WHERE phase = 1 AND queue = ? ORDER BY rank, due LIMIT ?",
            (queue, limit),
        )
        if not rows:
            return []
        seconds = self._leases.get(queue, DEFAULT_LEASE)
        text, rowids = placeholders([row[0] for row in rows])
        self._connection.execute(
            f"UPDATE task SET phase = 3, owner = ?, count = count + 1, lease = ? WHERE rowid IN {text}",  # noqa: S608
            (owner, self.now() + span(seconds), *rowids),
        )
        at = self._clock.monotonic()
        return [
            Delivery(
                envelope=envelope_of(queue, message_id, hop, rank, due, flags, body),
                receipt=f"{owner}:{count + 1}:{hop}:{message_id}",
                delivery_count=count + 1,
                lease_seconds=seconds,
                received_at=at,
            )
            for _, message_id, hop, rank, due, count, flags, body in rows
        ]

    def release(self, deliveries: Sequence[Delivery]) -> None:
        """Take back claims nobody heard of: they do not count."""
        for part in chunks([(d.envelope.id, d.envelope.hop, d.delivery_count) for d in deliveries]):
            text, parameters = values(part)
            self._connection.execute(
                "UPDATE task SET phase = 1, owner = NULL, lease = NULL, count = count - 1 "  # noqa: S608
                f"FROM {text} AS given WHERE id = column1 AND hop = column2 AND count = column3 AND phase = 3",
                parameters,
            )
        self.work.update(d.queue for d in deliveries)

    # --- settling ------------------------------------------------------------------------------

    def settle(self, settlements: Sequence[Settlement], owner: str, *, joined: bool) -> list[Settled]:
        """End or note each, if *owner* still has it; *joined*: its result is kept in the same row."""
        answers: dict[str, Settled] = {}
        ending = [s for s in settlements if s.ends]
        noting = [s for s in settlements if not s.ends]
        for part in chunks(ending):
            answers.update(self._end(part, owner, joined=joined))
        for part in chunks(noting):
            answers.update(self._note(part, owner, joined=joined))
        others = [
            envelope
            for s in ending
            if answers[s.delivery.receipt] is Settled.DONE
            for envelope in s.publish
            if envelope.id != s.delivery.envelope.id
        ]
        if others:
            self.publish(others, pending=joined)
        return [answers[s.delivery.receipt] for s in settlements]

    def _end(self, settlements: Sequence[Settlement], owner: str, *, joined: bool) -> dict[str, Settled]:
        now = self.now()
        mark = f"#{os.urandom(6).hex()}"  # names the settlement that changed a row, should the count not tell
        self._announce({envelope.queue for s in settlements for envelope in s.publish})
        text, parameters = values([self._ended_row(s, now, joined=joined) for s in settlements])
        cursor = self._connection.execute(END.format(values=text), (mark, *parameters, owner))
        if cursor.rowcount == len(settlements):
            answers = {s.delivery.receipt: Settled.DONE for s in settlements}
        else:
            answers = self._answers(settlements, lambda row, key: row[2] == f"{mark}:{key[1]}:{key[2]}")
        self.ended += [
            s.delivery.envelope.id
            for s in settlements
            if s.result is not None and s.result.state.is_terminal and answers[s.delivery.receipt] is Settled.DONE
        ]
        return answers

    def _note(self, settlements: Sequence[Settlement], owner: str, *, joined: bool) -> dict[str, Settled]:
        rows = [_note_row(s) for s in settlements if joined and s.result is not None]
        if rows:
            text, parameters = values(rows)
            cursor = self._connection.execute(NOTE.format(values=text), (*parameters, owner))
            if cursor.rowcount == len(settlements):
                return {s.delivery.receipt: Settled.DONE for s in settlements}
        return self._answers(
            settlements, lambda row, key: row[2] == owner and row[3] == LEASED and (row[0], row[1], row[4]) == key
        )

    def _answers(
        self, settlements: Sequence[Settlement], is_done: Callable[[list[Any], tuple[str, int, int]], bool]
    ) -> dict[str, Settled]:
        """What became of each settlement, read from the rows: for when not all of them took effect."""
        text, ids = placeholders([s.delivery.envelope.id for s in settlements])
        found = fetch_rows(self._connection, "id, hop, owner, phase, count", f"FROM task WHERE id IN {text}", ids)
        rows = {row[0]: row for row in found}
        answers = {}
        for s in settlements:
            row = rows.get(s.delivery.envelope.id)
            if row is not None and is_done(row, _key_of(s.delivery)):
                answer = Settled.DONE
            elif row is None or row[1] != s.delivery.envelope.hop or row[3] == SETTLED:
                answer = Settled.GONE
            else:
                answer = Settled.LOST
            answers[s.delivery.receipt] = answer
        return answers

    def _ended_row(self, settlement: Settlement, now: int, *, joined: bool) -> tuple[Any, ...]:
        delivery, result = settlement.delivery, settlement.result if joined else None
        own = delivery.envelope
        follow = next((envelope for envelope in settlement.publish if envelope.id == own.id), None)
        key = _key_of(delivery)
        if follow is None:
            kept = DEDUP_WINDOW if result is None else result.ttl
            line = (SETTLED, own.queue, None, None, own.hop, 0, None, None if kept is None else now + span(kept))
        else:
            phase, queue, rank, due, flags, body = self._line(follow, now)
            line = (phase, queue, rank, due, follow.hop, flags, body, None)
            if result is None and joined:
                result = ResultRecord(id=own.id, state=TaskState.PENDING, hop=follow.hop)
        return (*key, *line, *record_cells(result))

    def _line(self, envelope: Envelope, now: int) -> tuple[Any, ...]:
        """Phase, queue, rank, due, flags and body of an envelope that waits."""
        due = now if envelope.due is None else moment(envelope.due)
        text, is_raw = to_text(envelope.body)
        flags = (_RAW if is_raw else 0) | (_DUE if envelope.due is not None else 0)
        self.work.add(envelope.queue)
        return (DELAYED if due > now else READY, envelope.queue, _LEVELS - envelope.priority, due, flags, text)

    def extend(self, receipts: Sequence[str], owner: str) -> set[str]:
        """Renew the leases of *owner*; the receipts that are not its any more."""
        now, lost = self.now(), set()
        for part in chunks(receipts):
            keys = [_key(receipt) for receipt in part]
            text, parameters = values(keys)
            cursor = self._connection.execute(EXTEND.format(values=text), (now, _DEFAULT_SPAN, *parameters, owner))
            if cursor.rowcount != len(part):
                text, ids = placeholders([key[0] for key in keys])
                columns = "id, hop, count"
                rest = f"FROM task WHERE id IN {text} AND phase = 3 AND owner = ?"
                alive = {tuple(row) for row in fetch_rows(self._connection, columns, rest, (*ids, owner))}
                lost |= {receipt for receipt, key in zip(part, keys, strict=True) if key not in alive}
        self._connection.execute("UPDATE consumer SET seen = ? WHERE id = ?", (now, owner))
        return lost

    # --- queues and consumers ------------------------------------------------------------------

    def prepare(self, queues: Sequence[str], lease_seconds: float, owner: str) -> dict[str, float]:
        """Announce *owner*, and settle each queue's lease: the recorded one while another live consumer uses the queue."""
        now = self.now()
        self._announce(set(queues))
        for queue in queues:
            execute = self._connection.execute
            wanted = span(lease_seconds)
            (recorded,) = execute("SELECT ifnull(lease, ?) FROM queue WHERE name = ?", (wanted, queue)).fetchone()
            (others,) = execute(
                "SELECT count(*) FROM consumer WHERE queue = ? AND id <> ? AND seen >= ?",
                (queue, owner, now - recorded * _STALE),
            ).fetchone()
            in_force = recorded if others else wanted
            self._leases[queue] = in_force / span(1)
            execute("UPDATE queue SET lease = ? WHERE name = ?", (in_force, queue))
            execute("INSERT OR REPLACE INTO consumer (queue, id, seen) VALUES (?, ?, ?)", (queue, owner, now))
        return {queue: self._leases[queue] for queue in queues}

    def leave(self, owner: str) -> None:
        """Forget a consumer that closes."""
        self._connection.execute("DELETE FROM consumer WHERE id = ?", (owner,))

    def cleanup(self, queue: str, stale_seconds: float) -> int:
        """Forget the consumers of *queue* that were not seen for *stale_seconds*."""
        since = self.now() - span(stale_seconds)
        return self._connection.execute("DELETE FROM consumer WHERE queue = ? AND seen < ?", (queue, since)).rowcount

    def stats(self, queue: str) -> QueueStats:
        """The counts that the triggers keep, and the age of the first in line."""
        self._make_ready(queue)
        row = self._connection.execute("SELECT ready, delayed, running FROM queue WHERE name = ?", (queue,)).fetchone()
        (oldest,) = self._connection.execute(OLDEST, (queue,)).fetchone()
        ready, delayed, running = row or (0, 0, 0)
        return QueueStats(
            queue=queue,
            ready=ready,
            delayed=delayed,
            running=running,
            oldest_seconds=None if oldest is None else max(0, self.now() - oldest) / span(1),
        )

    def purge(self, queue: str) -> int:
        """Remove what waits in *queue*, with its records."""
        return self._connection.execute("DELETE FROM task WHERE queue = ? AND phase IN (1, 2)", (queue,)).rowcount

    def queues(self) -> list[str]:
        return [name for (name,) in self._connection.execute("SELECT name FROM queue ORDER BY name")]

    def expire(self) -> int:
        """Drop a bounded number of settled rows whose time is over; how many."""
        return self._connection.execute(
            "DELETE FROM task WHERE rowid IN (SELECT rowid FROM task WHERE phase = 0 AND expires <= ? LIMIT ?)",
            (self.now(), _PROMOTE),
        ).rowcount

    def has_expired(self) -> bool:
        """Whether `expire` would find something. Reads only."""
        row = self._connection.execute("SELECT 1 FROM task WHERE phase = 0 AND expires <= ? LIMIT 1", (self.now(),))
        return row.fetchone() is not None

    def clamp_leases(self) -> None:
        """After the wall clock went back: no lease ends later than one granted now would. Safe to repeat."""
        now = self.now()
        self._connection.execute(
            "UPDATE task SET lease = ? + ifnull((SELECT lease FROM queue WHERE name = task.queue), ?) "
            "WHERE phase = 3 AND lease > ? + 2 * ifnull((SELECT lease FROM queue WHERE name = task.queue), ?)",
            (now, _DEFAULT_SPAN, now, _DEFAULT_SPAN),
        )

    def _announce(self, queues: set[str]) -> None:
        """Queues need a row before anything is counted in them. Repeated after a rollback, so not remembered across one."""
        for queue in queues - self._known_queues:
            self._connection.execute("INSERT OR IGNORE INTO queue (name) VALUES (?)", (queue,))
        self._known_queues |= queues

    def forget_known(self) -> None:
        """After a rollback: what was announced may not be there."""
        self._known_queues.clear()


def _key(receipt: str) -> tuple[str, int, int]:
    """Id, hop and count of a receipt."""
    _, count, hop, message_id = receipt.split(":", 3)
    return message_id, int(hop), int(count)


def _key_of(delivery: Delivery) -> tuple[str, int, int]:
    """Id, hop and count, by which a delivery is told from an earlier one of the same message."""
    return delivery.envelope.id, delivery.envelope.hop, delivery.delivery_count


def envelope_of(queue: str, message_id: str, hop: int, rank: int, due: int, flags: int, body: str) -> Envelope:
    return Envelope(
        id=message_id,
        queue=queue,
        body=from_text(body, flags & _RAW),
        due=of_moment(due) if flags & _DUE else None,
        priority=_LEVELS - rank,
        hop=hop,
    )


def record_cells(record: ResultRecord | None) -> tuple[Any, ...]:
    """Whether there is a record, its state, hop, count, body, whether that is raw, and its holder."""
    if record is None:
        return (0, None, None, None, None, None, None)
    text, is_raw = to_text(record.body)
    return (1, str(record.state), record.hop, record.delivery_count, text, is_raw, record.holder)


def _note_row(settlement: Settlement) -> tuple[Any, ...]:
    own, record = settlement.delivery.envelope, settlement.result
    assert record is not None, "the caller has looked"  # noqa: S101
    _, state, _, _, text, is_raw, holder = record_cells(record)
    return (own.id, own.hop, settlement.delivery.delivery_count, state, text, is_raw, holder)
