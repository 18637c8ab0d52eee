"""The floor: what Python's own sqlite3 does on the same file system, without any framework, in WAL mode.

A row holds a text key, like a task's id, and a body of 300 bytes, about that of a message.
"""

from __future__ import annotations

import sqlite3
import time
import uuid
from functools import partial

from benchmarks.adapter import About
from benchmarks.floors import compute_rate
from benchmarks.tasks import FOLDER
from benchmarks.workloads import Numbers

ABOUT = About(title="sqlite3", broker="sqlite", guarantee="each commit synced", role="floor", scale=1)
_LOT = 100
_BODY = "x" * 300


def _open(synchronous: str) -> sqlite3.Connection:
    connection = sqlite3.connect(FOLDER / "floor.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    connection.execute("CREATE TABLE task (id TEXT PRIMARY KEY, owner TEXT, body TEXT)")
    return connection


def _fill(connection: sqlite3.Connection, rows: list[tuple[str, str]]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany("INSERT INTO task (id, body) VALUES (?, ?)", rows)
    connection.execute("COMMIT")


def _rows(n: int) -> list[tuple[str, str]]:
    return [(uuid.uuid4().hex, _BODY) for _ in range(n)]


def _insert(n: int, *, name: str, synchronous: str, lot: int) -> Numbers:
    connection, rows = _open(synchronous), _rows(n)
    started = time.perf_counter()
    for start in range(0, n, lot):
        _fill(connection, rows[start : start + lot])
    seconds = time.perf_counter() - started
    connection.close()
    return {name: n / seconds}


def _claim_and_delete(n: int) -> Numbers:
    """Claim a hundred in one transaction, delete them in the next: what at-least-once costs at least."""
    connection = _open("FULL")
    _fill(connection, _rows(n))
    started = time.perf_counter()
    done = 0
    while done < n:
        connection.execute("BEGIN IMMEDIATE")
        claimed = connection.execute(
            "UPDATE task SET owner = 'me' WHERE rowid IN (SELECT rowid FROM task LIMIT ?) RETURNING rowid, body", (_LOT,)
        ).fetchall()
        connection.execute("COMMIT")
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("DELETE FROM task WHERE rowid = ?", [(row,) for row, _ in claimed])
        connection.execute("COMMIT")
        done += len(claimed)
    seconds = time.perf_counter() - started
    connection.close()
    return {"claim_delete": n / seconds}


WORKLOADS = {
    "cpu_floor": compute_rate,
    "insert_full": lambda n: _insert(n // 10, name="insert_full", synchronous="FULL", lot=1),
    "insert_normal": partial(_insert, name="insert_normal", synchronous="NORMAL", lot=1),
    "insert_hundred": partial(_insert, name="insert_hundred", synchronous="FULL", lot=_LOT),
    "claim_delete": _claim_and_delete,
}
