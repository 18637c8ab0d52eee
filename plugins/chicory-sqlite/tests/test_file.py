"""The file: how it is made, what is refused, and what happens when others hold it or the disk is full."""

import sqlite3
import stat
import threading

import pytest
from msgspec.structs import replace

from chicory import BrokerConnectionError, Chicory
from chicory.errors import BackendConnectionError, BrokerFullError, ConfigurationError
from chicory.plugin import Settlement
from chicory.testing import a_record, an_envelope, receive_one
from chicory_sqlite import File, SqliteBackend, SqliteBroker, schema


async def test_the_file_is_private_to_its_user(tmp_path, clock):
    file = File(path=tmp_path / "new" / "chicory.db", durability="full", lock_seconds=1, clock=clock)

    async with SqliteBroker(file) as broker:
        await broker.publish([an_envelope()])

        modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "new").iterdir()}
        assert modes["chicory.db"] == 0o600
        assert modes["chicory.db-wal"] == 0o600
        assert modes["chicory.db.wake"] == 0o700
        assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700


@pytest.mark.parametrize(("durability", "level"), [("full", 2), ("normal", 1)])
async def test_commits_are_synced_as_configured(file, durability, level):
    async with SqliteBroker(replace(file, durability=durability)) as broker:
        pragmas = await broker.engine.submit(lambda _t: _pragmas(broker.engine), is_write=False)

    assert pragmas == ("wal", level)


async def test_only_commits_that_accept_or_end_something_are_synced(file):
    trace = []
    async with SqliteBroker(replace(file, durability="full")) as broker:
        connection = broker.engine._connection
        await broker.engine.submit(lambda _t: connection.set_trace_callback(trace.append), is_write=False)
        await broker.publish([an_envelope()])
        delivery = await receive_one(broker)
        await broker.settle([Settlement(delivery=delivery)])
        await broker.engine.submit(lambda _t: connection.set_trace_callback(None), is_write=False)

    seen = [line for line in trace if line == "COMMIT" or line.startswith("PRAGMA synchronous")]
    assert seen == ["COMMIT", "PRAGMA synchronous = NORMAL", "COMMIT", "PRAGMA synchronous = FULL", "COMMIT"]


def _pragmas(engine):
    (mode,) = engine._connection.execute("PRAGMA journal_mode").fetchone()
    (level,) = engine._connection.execute("PRAGMA synchronous").fetchone()
    return mode, level


async def test_a_file_that_is_no_database_is_refused(file):
    file.path.write_bytes(b"This is a letter to my aunt." * 100)

    with pytest.raises(ConfigurationError, match="is not a SQLite database.*choose another path"):
        await SqliteBroker(file).__aenter__()

    assert file.path.read_bytes().startswith(b"This is a letter")


async def test_the_database_of_another_program_is_refused(file):
    with sqlite3.connect(file.path) as other:
        other.execute("CREATE TABLE aunts (name TEXT)")
    other.close()

    with pytest.raises(ConfigurationError, match="belongs to another program"):
        await SqliteBroker(file).__aenter__()


async def test_a_file_of_a_later_version_is_refused(file):
    async with SqliteBroker(file):
        pass
    with sqlite3.connect(file.path) as later:
        later.execute("PRAGMA user_version = 99")
    later.close()

    with pytest.raises(ConfigurationError, match="version 99.*update"):
        await SqliteBroker(file).__aenter__()


async def test_a_network_file_system_is_refused(file, monkeypatch):
    monkeypatch.setattr(schema, "_FOREIGN", frozenset(_kinds_mounted()))

    with pytest.raises(ConfigurationError, match="network file system.*use a local disk"):
        await SqliteBroker(file).__aenter__()


def _kinds_mounted():
    with open("/proc/mounts") as mounts:
        return {line.split()[2] for line in mounts}


async def test_an_old_sqlite_is_refused(file, monkeypatch):
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 31, 1))

    with pytest.raises(ConfigurationError, match=r"needs SQLite 3\.35"):
        await SqliteBroker(file).__aenter__()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "sqlite://host/file.db"])
def test_an_address_without_a_path_is_refused(url):
    with pytest.raises(ConfigurationError, match="names no file: write sqlite:///relative"):
        Chicory(broker=url)


def test_settings_may_stand_in_the_address(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    app = Chicory(broker="sqlite:///some/where.db?durability=normal&lock_seconds=3")

    file = app._broker.file
    assert (file.path, file.durability, file.lock_seconds) == (tmp_path / "some/where.db", "normal", 3.0)
    assert app._backend.file == file
    assert not (tmp_path / "some").exists(), "an app opens nothing"


async def test_a_lock_that_is_not_given_up_is_a_connection_error(file, broker, backend):
    with _locked(file.path):
        with pytest.raises(BrokerConnectionError, match="has held its write lock for"):
            await broker.publish([an_envelope()])
        with pytest.raises(BackendConnectionError, match="has held its write lock for"):
            await backend.store([a_record()])

    await broker.publish([an_envelope(id="later")])
    assert (await receive_one(broker)).envelope.id == "later"


async def test_a_lock_that_is_given_up_in_time_goes_unnoticed(file, broker):
    with _locked(file.path) as other:
        threading.Timer(0.3, lambda: other.execute("COMMIT")).start()

        await broker.publish([an_envelope(id="a")])

    assert (await receive_one(broker)).envelope.id == "a"


class _locked:
    """Another program with a write transaction open."""

    def __init__(self, path):
        self.connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)

    def __enter__(self):
        self.connection.execute("BEGIN IMMEDIATE")
        return self.connection

    def __exit__(self, *_error):
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")
        self.connection.close()


async def test_a_full_disk_refuses_publishing_and_leaves_the_rest_as_it_was(broker):
    await broker.publish([an_envelope(id="before")])
    pages = await broker.engine.submit(lambda _t: _limit_pages(broker.engine, extra=2), is_write=False)
    assert pages

    with pytest.raises(BrokerFullError, match="database or disk is full"):
        await broker.publish([an_envelope(body=b"x" * 100_000)])

    assert (await receive_one(broker)).envelope.id == "before"
    await broker.engine.submit(lambda _t: _limit_pages(broker.engine, extra=100_000), is_write=False)
    await broker.publish([an_envelope(id="after", body=b"x" * 100_000)])
    assert (await receive_one(broker)).envelope.id == "after"


def _limit_pages(engine, extra):
    (count,) = engine._connection.execute("PRAGMA page_count").fetchone()
    return engine._connection.execute(f"PRAGMA max_page_count = {count + extra}").fetchone()


async def test_counting_and_claiming_use_indexes_only(broker):
    """Their cost does not grow with the number of messages: no plan scans the table."""
    await broker.publish([an_envelope() for _ in range(50)])
    statements = []
    await broker.engine.submit(lambda _t: broker.engine._connection.set_trace_callback(statements.append), is_write=False)

    await broker.stats("default")
    deliveries = await broker.receive(["default"], 10, 0)
    await broker.extend([d.receipt for d in deliveries])

    await broker.engine.submit(lambda _t: broker.engine._connection.set_trace_callback(None), is_write=False)
    plans = await broker.engine.submit(lambda _t: [_plan(broker.engine, s) for s in statements], is_write=False)
    steps = [step for plan in plans for step in plan]
    assert any("task_ready" in step for step in steps)
    assert [step for step in steps if step.startswith("SCAN task")] == []


def _plan(engine, statement):
    if not statement.lstrip().upper().startswith(("SELECT", "UPDATE", "DELETE", "INSERT")):
        return []
    return [row[3] for row in engine._connection.execute(f"EXPLAIN QUERY PLAN {statement}")]


async def test_results_are_dropped_when_their_time_is_over(file, broker, backend, clock):
    await backend.store([a_record(ttl=60.0) for _ in range(700)] + [a_record(id="lasting", ttl=3600.0)])
    await clock.advance(61)

    broker.engine._kept_house = 0.0
    await broker.publish([an_envelope(id="new")])
    broker.engine._kept_house = 0.0
    await broker.stats("default")

    (left,) = await broker.engine.submit(
        lambda _t: broker.engine._connection.execute("SELECT count(*) FROM task").fetchone(), is_write=False
    )
    assert left == 2


async def test_a_wall_clock_set_forward_takes_no_lease_away(file, broker, clock, opened):
    await broker.publish([an_envelope()])
    delivery = await receive_one(broker)
    rival = await opened.enter_async_context(SqliteBroker(file))

    clock._start = clock._start.replace(year=2027)

    assert await rival.receive(["default"], 1, 0) == []
    assert await broker.extend([delivery.receipt]) == set()
    await clock.advance(31)
    assert (await receive_one(rival)).delivery_count == 2


async def test_a_wall_clock_set_back_does_not_hold_a_lease_for_ever(file, broker, clock, opened):
    await broker.publish([an_envelope()])
    await receive_one(broker)
    rival = await opened.enter_async_context(SqliteBroker(file))

    clock._start = clock._start.replace(year=2025)
    await broker.stats("default")
    await clock.advance(61)

    assert (await receive_one(rival)).delivery_count == 2


async def test_closing_the_last_user_ends_the_thread_and_the_log(file):
    async with SqliteBroker(file) as first, SqliteBackend(file) as second:
        assert first.engine is second.engine
        await first.publish([an_envelope()])
        thread = first.engine._thread

    thread.join(timeout=5)
    assert not thread.is_alive()
    assert not file.path.with_name("chicory.db-wal").exists()
