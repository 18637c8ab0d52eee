"""Records of task ids, and heartbeats: statements of an open transaction, on the engine's thread."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, final

import msgspec

from chicory.plugin import ResultRecord, TaskState, WorkerStats
from chicory_sqlite.messages import record_cells
from chicory_sqlite.moments import moment, span
from chicory_sqlite.rows import chunks, fetch_rows, from_text, placeholders, values

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping, Sequence

    from chicory.plugin import Clock

__all__ = ["Records"]

_STORE = """
INSERT INTO task (id, hop, phase, state, record_hop, record_count, result, result_raw, holder, expires)
SELECT column1, column3, 0, column2, column3, column4, column5, column6, column7, column8
FROM {values} WHERE column1 IS NOT NULL
ON CONFLICT (id) DO UPDATE SET
  state = excluded.state, record_hop = excluded.record_hop, record_count = excluded.record_count, result = excluded.result,
  result_raw = excluded.result_raw, holder = excluded.holder, expires = excluded.expires
"""
_COLUMNS = "id, state, record_hop, record_count, result, result_raw, holder"
_LIVE = "state IS NOT NULL AND (expires IS NULL OR expires > ? OR phase <> 0)"

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(WorkerStats).decode


@final
class Records:
    """What the backend keeps. Ids whose record became terminal, or went, are collected, to be rung after the commit."""

    def __init__(self, connection: sqlite3.Connection, clock: Clock) -> None:
        self._connection, self._clock = connection, clock
        self.ended: list[str] = []

    def now(self) -> int:
        return moment(self._clock.now())

    def store(self, records: Sequence[ResultRecord]) -> list[bool]:
        """Keep each record that may follow the one that is there."""
        return [kept for part in chunks(records) for kept in self._store(part)]

    def _store(self, records: Sequence[ResultRecord]) -> list[bool]:
        now = self.now()
        present = {record.id: record for record in self.fetch([record.id for record in records])}
        answers, kept = [], {}
        for record in records:
            before = present.get(record.id)
            may = before is None or record.may_follow(before.state, before.hop, before.delivery_count)
            answers.append(may)
            if may:
                present[record.id] = kept[record.id] = record
        if kept:
            text, parameters = values([self._row(record, now) for record in kept.values()])
            self._connection.execute(_STORE.format(values=text), parameters)
            self.ended += [record.id for record in kept.values() if record.state.is_terminal]
        return answers

    def _row(self, record: ResultRecord, now: int) -> tuple[Any, ...]:
        _, state, hop, count, text, is_raw, holder = record_cells(record)
        return (record.id, state, hop, count, text, is_raw, holder, None if record.ttl is None else now + span(record.ttl))

    def fetch(self, ids: Sequence[str]) -> list[ResultRecord]:
        """The records there are of *ids*, in any order. Reads only."""
        found = []
        for part in chunks(ids):
            text, parameters = placeholders(part)
            rest = f"FROM task WHERE id IN {text} AND {_LIVE}"
            found += [_record(row) for row in fetch_rows(self._connection, _COLUMNS, rest, (*parameters, self.now()))]
        return found

    def held(self) -> Mapping[str, Sequence[ResultRecord]]:
        """Records with a holder that are not terminal, by holder. Reads only."""
        by_holder: dict[str, list[ResultRecord]] = defaultdict(list)
        rows = fetch_rows(self._connection, _COLUMNS, "FROM task WHERE holder IS NOT NULL AND state = 'STARTED'", ())
        for row in rows:
            by_holder[row[6]].append(_record(row))
        return by_holder

    def delete(self, ids: Sequence[str]) -> int:
        """Forget records whose message is gone; how many. The id stays known to the dedup window."""
        count = 0
        for part in chunks(ids):
            text, parameters = placeholders(part)
            rest = f"FROM task WHERE id IN {text} AND phase = 0 AND {_LIVE}"
            gone = [row[0] for row in fetch_rows(self._connection, "id", rest, (*parameters, self.now()))]
            if gone:
                text, parameters = placeholders(gone)
                self._connection.execute(
                    f"UPDATE task SET state = NULL, result = NULL, holder = NULL WHERE id IN {text}",  # noqa: S608
                    parameters,
                )
            self.ended += gone
            count += len(gone)
        return count

    # --- heartbeats ----------------------------------------------------------------------------

    def beat(self, stats: WorkerStats, ttl: float) -> None:
        """Keep the newest heartbeat of a worker."""
        row = (stats.worker_id, _encode(stats).decode(), self.now() + span(ttl))
        self._connection.execute("INSERT OR REPLACE INTO worker (id, stats, until) VALUES (?, ?, ?)", row)

    def heartbeats(self) -> list[tuple[WorkerStats, bool]]:
        """Every heartbeat, and whether it is live. Reads only."""
        now = self.now()
        rows = self._connection.execute("SELECT stats, until FROM worker ORDER BY id").fetchall()
        beats = [(_decode(text), until) for text, until in rows]
        return [(stats, stats.is_running and now < until) for stats, until in beats]

    def drop_workers(self, worker_ids: Sequence[str]) -> int:
        """Forget heartbeats; how many there were."""
        if not worker_ids:
            return 0
        text, parameters = placeholders(worker_ids)
        return self._connection.execute(f"DELETE FROM worker WHERE id IN {text}", parameters).rowcount  # noqa: S608


def _record(row: list[Any]) -> ResultRecord:
    task_id, state, hop, count, text, is_raw, holder = row
    return ResultRecord(
        id=task_id,
        state=TaskState(state),
        hop=hop,
        delivery_count=count,
        body=from_text(text, is_raw) if text else b"",
        holder=holder,
    )
