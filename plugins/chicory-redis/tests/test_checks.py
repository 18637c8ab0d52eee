"""What ``chicory doctor`` finds out about a server."""

import pytest
from msgspec.structs import replace

from chicory import Chicory
from chicory.plugin import SYSTEM_CLOCK, FindingLevel
from chicory.testing import an_envelope
from chicory_redis import RedisBroker, checks
from chicory_redis.checks import Checks


class AnApp:
    """What the checks see of an app."""

    def __init__(self, place):
        self.app = Chicory(broker=RedisBroker(place), backend=None)
        self.clock, self.config = SYSTEM_CLOCK, self.app.config

    def broker_twin(self):
        return self.app.broker_twin()

    def backend_twin(self):
        return self.app.backend_twin()


@pytest.fixture
def said(place):
    """What the checks say of a place, by level."""

    async def look(**changes):
        findings = await Checks(AnApp(replace(place, **changes)))()
        return {level: [f.what for f in findings if f.level is level] for level in FindingLevel}

    return look


async def test_a_server_without_persistence_works_and_keeps_nothing(said):
    found = await said()

    assert found[FindingLevel.ERROR] == []
    (version,) = found[FindingLevel.OK]
    assert " is Valkey " in version or " is Redis " in version
    assert any("no append-only file" in what for what in found[FindingLevel.WARNING])


async def test_a_server_that_removes_what_it_holds_when_it_is_full(said, place):
    async with RedisBroker(place) as broker:
        await broker.server.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        try:
            found = await said()
        finally:
            await broker.server.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")

    assert found[FindingLevel.ERROR] == ["maxmemory-policy is allkeys-lru: a server that is full removes messages and results"]


async def test_a_server_on_another_host_without_password_or_encryption(said, monkeypatch):
    monkeypatch.setattr(checks, "_is_near", lambda host: False)

    warnings = (await said())[FindingLevel.WARNING]

    assert any("not encrypted" in what for what in warnings)
    assert any("without a password" in what for what in warnings)


@pytest.mark.parametrize(
    ("host", "near"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("10.0.0.1", False), ("db", False)]
)
def test_what_is_near(host, near):
    assert checks._is_near(host) is near


async def test_a_clock_that_is_off(said, monkeypatch):
    monkeypatch.setattr(checks, "_SKEW", -1.0)

    assert any("and this host's differ by" in what for what in (await said())[FindingLevel.WARNING])


async def test_a_queue_that_grows(said, place, monkeypatch):
    monkeypatch.setattr(checks, "_MANY", 2)
    async with RedisBroker(place) as broker:
        await broker.publish([an_envelope() for _ in range(3)])

    assert any("3 messages wait in 'default'" in what for what in (await said())[FindingLevel.WARNING])


def test_a_server_that_is_too_old(place):
    found = list(checks._of_version(place, {"redis_version": "5.0.3"}))

    assert [finding.level for finding in found] == [FindingLevel.OK, FindingLevel.ERROR]
    assert "older than 6.2" in found[1].what
