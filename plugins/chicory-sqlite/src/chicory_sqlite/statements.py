"""The statements over many rows. ``{values}`` is a VALUES list whose columns are called column1, column2 and so on."""

from __future__ import annotations

__all__ = ["END", "EXTEND", "LOOK", "NOTE", "OLDEST", "PUBLISH", "PUBLISH_RECORD"]

PUBLISH = """
INSERT INTO task (id, hop, phase, queue, rank, due, flags, body, state, record_hop, record_count, count)
SELECT column1, column2, column3, column4, column5, column6, column7, column8, {state}, {hop}, {zero}, 0
FROM {values} WHERE column1 IS NOT NULL
ON CONFLICT (id) DO UPDATE SET
  hop = excluded.hop, phase = excluded.phase, queue = excluded.queue, rank = excluded.rank, due = excluded.due,
  flags = excluded.flags, body = excluded.body, owner = NULL, count = 0, lease = NULL, expires = NULL {record}
WHERE excluded.hop > max(task.hop, ifnull(task.record_hop, -1)) OR (task.phase = 0 AND task.expires <= ?)
"""
PUBLISH_RECORD = ", state = excluded.state, record_hop = excluded.record_hop, record_count = 0, result = NULL, holder = NULL"

END = """
UPDATE task SET
  phase = column4, queue = column5, rank = column6, due = column7, hop = column8, flags = column9, body = column10,
  owner = ? || ':' || column2 || ':' || column3, count = 0, lease = NULL, expires = column11,
  state = CASE column12 WHEN 1 THEN column13 ELSE state END,
  record_hop = CASE column12 WHEN 1 THEN column14 ELSE record_hop END,
  record_count = CASE column12 WHEN 1 THEN column15 ELSE record_count END,
  result = CASE column12 WHEN 1 THEN column16 ELSE result END,
  result_raw = CASE column12 WHEN 1 THEN column17 ELSE result_raw END,
  holder = CASE column12 WHEN 1 THEN column18 ELSE holder END
FROM {values} AS given
WHERE task.id = column1 AND task.hop = column2 AND task.count = column3 AND task.owner = ? AND task.phase = 3
"""
NOTE = """
UPDATE task SET
  state = column4, record_hop = column2, record_count = column3, result = column5, result_raw = column6, holder = column7
FROM {values} AS given
WHERE task.id = column1 AND task.hop = column2 AND task.count = column3 AND task.owner = ? AND task.phase = 3
"""
EXTEND = """
UPDATE task SET lease = ? + ifnull((SELECT lease FROM queue WHERE name = task.queue), ?)
FROM {values} AS given
WHERE task.id = column1 AND task.hop = column2 AND task.count = column3 AND task.owner = ? AND task.phase = 3
"""
LOOK = """
SELECT EXISTS (SELECT 1 FROM task WHERE phase = 1 AND queue = ?),
       (SELECT min(due) FROM task WHERE phase = 2 AND queue = ?), (SELECT min(lease) FROM task WHERE phase = 3 AND queue = ?)
"""
OLDEST = """
SELECT min(oldest) FROM (
  SELECT (SELECT due FROM task WHERE phase = 1 AND queue = ? AND rank = level.column1 ORDER BY due LIMIT 1) AS oldest
  FROM (VALUES (0), (1), (2), (3), (4), (5), (6), (7), (8), (9)) AS level)
"""
