"""The file: its tables, and opening it safely."""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING

from chicory.errors import BrokerConnectionError, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from chicory_sqlite.settings import Durability

__all__ = ["DELAYED", "LEASED", "READY", "SETTLED", "open_database", "when_free"]

SETTLED, READY, DELAYED, LEASED = 0, 1, 2, 3
"""Phases of a row. A settled one is only the record of its id, or its place in the dedup window."""

_OLDEST = (3, 35, 0)
_VERSION = 1
_APPLICATION_ID = 0x43484943  # "CHIC"
_FOREIGN = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "afs", "ceph", "glusterfs", "virtiofs"})

# One row per task id is message and record at once: publishing is one insert, settling one update. ``rank`` is 9 - priority,
# so that every index ascends; moments are microseconds. The triggers keep the counts of each queue, so that nothing ever
# scans; they cost 2 µs a task.
_TABLES = """
CREATE TABLE task (
  id TEXT PRIMARY KEY,
  hop INTEGER NOT NULL,
  phase INTEGER NOT NULL,
  queue TEXT, rank INTEGER, due INTEGER, flags INTEGER NOT NULL DEFAULT 0, body TEXT,
  owner TEXT, count INTEGER NOT NULL DEFAULT 0, lease INTEGER,
  state TEXT, record_hop INTEGER, record_count INTEGER, result TEXT, result_raw INTEGER, holder TEXT,
  expires INTEGER
);
CREATE INDEX task_ready ON task (queue, rank, due) WHERE phase = 1;
CREATE INDEX task_delayed ON task (queue, due) WHERE phase = 2;
CREATE INDEX task_leased ON task (queue, lease) WHERE phase = 3;
CREATE INDEX task_expired ON task (expires) WHERE phase = 0;
CREATE INDEX task_held ON task (holder) WHERE holder IS NOT NULL;
CREATE TABLE queue (
  name TEXT PRIMARY KEY, lease INTEGER,
  ready INTEGER NOT NULL DEFAULT 0, delayed INTEGER NOT NULL DEFAULT 0, running INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE consumer (queue TEXT, id TEXT, seen INTEGER NOT NULL, PRIMARY KEY (queue, id)) WITHOUT ROWID;
CREATE TABLE worker (id TEXT PRIMARY KEY, stats TEXT NOT NULL, until INTEGER NOT NULL) WITHOUT ROWID;
CREATE TRIGGER task_counted_in AFTER INSERT ON task WHEN new.phase > 0 BEGIN
  UPDATE queue SET ready = ready + (new.phase = 1), delayed = delayed + (new.phase = 2), running = running + (new.phase = 3)
  WHERE name = new.queue;
END;
CREATE TRIGGER task_counted_out AFTER DELETE ON task WHEN old.phase > 0 BEGIN
  UPDATE queue SET ready = ready - (old.phase = 1), delayed = delayed - (old.phase = 2), running = running - (old.phase = 3)
  WHERE name = old.queue;
END;
CREATE TRIGGER task_counted_over AFTER UPDATE OF phase, queue ON task
WHEN old.phase <> new.phase OR old.queue IS NOT new.queue BEGIN
  UPDATE queue SET ready = ready - (old.phase = 1), delayed = delayed - (old.phase = 2), running = running - (old.phase = 3)
  WHERE name = old.queue AND old.phase > 0;
  UPDATE queue SET ready = ready + (new.phase = 1), delayed = delayed + (new.phase = 2), running = running + (new.phase = 3)
  WHERE name = new.queue AND new.phase > 0;
END;
"""


def open_database(path: Path, durability: Durability, lock_seconds: float) -> sqlite3.Connection:
    """A connection to the file at *path*, which is made (0600, its directory 0700) if it does not exist.

    Raises:
        ConfigurationError: the file is not chicory's, is newer than this plugin, or lies on a network file system.
        BrokerConnectionError: it cannot be opened, or another process kept it locked for *lock_seconds*.
    """
    if sqlite3.sqlite_version_info < _OLDEST:
        raise ConfigurationError(f"chicory-sqlite needs SQLite 3.35, and this Python has {sqlite3.sqlite_version}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _refuse_network(path.parent)
        if not path.exists():  # only then: closing any descriptor of it drops the locks that this process holds
            _create(path)
        connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False, cached_statements=256)
        try:
            when_free(lambda: _prepare(connection, durability), str(path), lock_seconds)
        except BaseException:
            connection.close()
            raise
    except (OSError, sqlite3.OperationalError) as error:
        raise BrokerConnectionError(f"sqlite:///{path}", str(error)) from error
    except sqlite3.DatabaseError as error:
        raise ConfigurationError(f"{path} is not a SQLite database: {error}; choose another path") from error
    return connection


def _create(path: Path) -> None:
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def when_free(write: Callable[[], object], path: str, lock_seconds: float) -> None:
    """Call *write* until no other process holds the lock it needs.

    SQLite's own busy handler waits up to 100 ms between two tries; these are jittered and begin at a tenth of a millisecond.

    Raises:
        BrokerConnectionError: it was locked for *lock_seconds*.
    """
    deadline = time.monotonic() + lock_seconds
    pause = 0.0001
    while True:
        try:
            write()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise
            if time.monotonic() > deadline:
                raise BrokerConnectionError(
                    f"sqlite:///{path}", f"another process has held its write lock for {lock_seconds} s"
                ) from error
            time.sleep(random.uniform(pause / 2, pause))
            pause = min(pause * 1.5, 0.005)
        else:
            return


def _prepare(connection: sqlite3.Connection, durability: Durability) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if application != _APPLICATION_ID and tables:
        raise ConfigurationError("this SQLite file belongs to another program: choose another path for chicory")
    if version > _VERSION:
        raise ConfigurationError(f"this file has version {version}, and this chicory-sqlite knows {_VERSION}: update it")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {durability.upper()}")
    if version == 0:
        connection.execute("BEGIN IMMEDIATE")
        try:
            (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            if not tables:  # else another process was faster
                for statement in _statements():
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {_VERSION}")
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise


def _statements() -> list[str]:
    statements, lines = [], []
    for line in _TABLES.strip().splitlines():
        lines.append(line)
        if sqlite3.complete_statement("\n".join(lines)):
            statements.append("\n".join(lines))
            lines = []
    return statements


def _refuse_network(folder: Path) -> None:
    """WAL needs memory that all its processes share, which a network file system does not give (sqlite.org/wal.html)."""
    try:
        mounts = Path("/proc/mounts").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    entries = [line.split() for line in mounts.splitlines()]
    real = os.path.realpath(folder)
    below = [entry for entry in entries if os.path.commonpath([real, entry[1]]) == entry[1]]
    kind = max(below, key=lambda entry: len(entry[1]), default=["", "", ""])[2]
    if kind in _FOREIGN:
        raise ConfigurationError(f"{folder} is on a network file system ({kind}), where SQLite is not safe: use a local disk")
