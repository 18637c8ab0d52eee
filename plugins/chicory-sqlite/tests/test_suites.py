"""SQLite passes the suites of the core, unchanged."""

from pathlib import Path

import pytest

from chicory.plugin import SYSTEM_CLOCK
from chicory.testing import BackendSuite, BrokerSuite, JoinedSuite, PluginSuite
from chicory_sqlite import File, SqliteBackend, SqliteBackendConfig, SqliteBroker, SqliteBrokerConfig


def a_file(folder: Path, clock, name: str = "chicory.db") -> File:
    return File(path=folder / name, durability="normal", lock_seconds=5.0, clock=clock)


class TestSqliteBroker(BrokerSuite):
    @pytest.fixture
    def make_broker(self, tmp_path, clock):
        return lambda: SqliteBroker(a_file(tmp_path, clock))


class TestSqliteBrokerInRealTime(BrokerSuite):
    """The same promises with the clock of the machine: the waiting is real."""

    @pytest.fixture
    def clock(self):
        return SYSTEM_CLOCK

    @pytest.fixture
    def lease(self):
        return 0.3

    @pytest.fixture
    def make_broker(self, tmp_path, clock, monkeypatch):
        monkeypatch.setattr("chicory_sqlite.messages.DEDUP_WINDOW", 0.2)
        return lambda: SqliteBroker(a_file(tmp_path, clock))

    async def test_an_id_may_be_used_again_after_the_window(self, broker, pass_time):
        """The capability says 120 s, which nobody waits for; the fake clock does."""


class TestSqliteBackend(BackendSuite):
    @pytest.fixture
    def make_backend(self, tmp_path, clock):
        return lambda: SqliteBackend(a_file(tmp_path, clock))


class TestSqliteJoined(JoinedSuite):
    @pytest.fixture
    def make_pair(self, tmp_path, clock):
        file = a_file(tmp_path, clock)
        return lambda: (SqliteBroker(file), SqliteBackend(file))


class TestSqliteApart(JoinedSuite):
    """Broker and backend in two files: ``store_then_settle``."""

    @pytest.fixture
    def make_pair(self, tmp_path, clock):
        here, there = a_file(tmp_path, clock), a_file(tmp_path, clock, "results.db")
        return lambda: (SqliteBroker(here), SqliteBackend(there))


class TestSqlitePlugin(PluginSuite):
    name = "sqlite"
    client_libraries = ("sqlite3",)
    settings = (SqliteBrokerConfig, SqliteBackendConfig)
