"""Files and clocks for the tests of the SQLite plugin."""

from contextlib import AsyncExitStack

import pytest

from chicory.testing import FakeClock
from chicory_sqlite import File, SqliteBackend, SqliteBroker


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def file(tmp_path, clock):
    return File(path=tmp_path / "chicory.db", durability="normal", lock_seconds=2.0, clock=clock)


@pytest.fixture
async def opened():
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
async def broker(file, opened):
    broker = await opened.enter_async_context(SqliteBroker(file))
    await broker.prepare(["default"], 30)
    return broker


@pytest.fixture
async def backend(file, opened):
    return await opened.enter_async_context(SqliteBackend(file))
