"""What ``chicory doctor`` finds out about a server."""

import pytest
from msgspec.structs import replace

from chicory import Chicory
from chicory.plugin import FindingLevel
from chicory.testing import an_envelope
from chicory_nats import NatsBroker, checks
from chicory_nats.checks import Checks


@pytest.fixture
def said(place):
    """What the checks say of a place, by level."""

    async def look(at=place, **changes):
        findings = await Checks(Chicory(broker=NatsBroker(replace(at, **changes)), backend=None))()
        return {level: [f.what for f in findings if f.level is level] for level in FindingLevel}

    return look


async def test_a_server_as_it_comes(said):
    found = await said()

    assert found[FindingLevel.ERROR] == []
    (version,) = found[FindingLevel.OK]
    assert " is NATS 2." in version
    (disk,) = found[FindingLevel.WARNING]
    assert "how often the server syncs to disk is not known" in disk


async def test_monitoring_tells_how_often_the_disk_is_synced(said, make_server):
    monitored = make_server("http: 127.0.0.1:-1")
    (log,) = [line for line in (monitored.folder / "server.log").read_text().splitlines() if "http monitor" in line]
    url = f"http://127.0.0.1:{log.rpartition(':')[2]}"

    found = await said(monitored.place(monitor_url=url))

    assert found[FindingLevel.WARNING] == ["the server syncs to disk every 120 s: a power cut costs what came since"]
    found = await said(monitored.place(monitor_url=f"{monitored.url}"))
    assert any("is no http://" in what for what in found[FindingLevel.ERROR])


async def test_a_server_that_syncs_always(said, tmp_path, make_server):
    monitored = make_server(f'http: 127.0.0.1:-1\njetstream {{ store_dir: "{tmp_path}/js", sync_interval: always }}')
    (log,) = [line for line in (monitored.folder / "server.log").read_text().splitlines() if "http monitor" in line]

    found = await said(monitored.place(monitor_url=f"http://127.0.0.1:{log.rpartition(':')[2]}"))

    assert found[FindingLevel.WARNING] == []
    assert "the server syncs each message to disk" in found[FindingLevel.OK]


async def test_jetstream_that_is_off(said, make_server):
    server = make_server("jetstream: false")

    found = await said(server.place())

    assert found[FindingLevel.ERROR] == ["JetStream is off, for the server or for this account"]


async def test_a_stream_that_drops_what_is_old(said, place):
    async with NatsBroker(place) as broker:
        config = (await broker.server.request(f"STREAM.INFO.{place.names.stream}"))["config"]
        await broker.server.request(f"STREAM.UPDATE.{place.names.stream}", {**config, "max_msgs": 1000})

    (error,) = (await said())[FindingLevel.ERROR]
    assert "max_msgs set: the oldest tasks are dropped undone" in error


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


async def test_an_account_that_is_nearly_full():
    limits = {"max_storage": 1000, "max_streams": 10, "max_consumers": -1}

    (finding,) = checks._of_account({"storage": 900, "streams": 2, "consumers": 5, "limits": limits})

    assert finding.what == "the account has 900 of 1000 bytes on disk: beyond that, calls are refused"


async def test_other_replicas_than_wanted(said, place):
    async with NatsBroker(place):
        pass

    assert any("kept on 1 servers, and replicas is 3" in what for what in (await said(replicas=3))[FindingLevel.WARNING])


def test_a_clock_that_is_off(place):
    assert [f.level for f in checks._of_clock(place, 3.0)] == [FindingLevel.WARNING]
    assert list(checks._of_clock(place, 0.5)) == []


async def test_a_server_that_takes_less_than_is_sent(said, make_server):
    server = make_server("max_payload: 65536")

    assert any("takes messages of 65536 bytes" in what for what in (await said(server.place()))[FindingLevel.WARNING])


async def test_a_queue_that_grows(said, place, monkeypatch):
    monkeypatch.setattr(checks, "_MANY", 2)
    async with NatsBroker(place) as broker:
        await broker.publish([an_envelope() for _ in range(3)])

    assert any("3 messages wait in 'default'" in what for what in (await said())[FindingLevel.WARNING])


def test_a_server_that_is_too_old(place):
    found = list(checks._of_version(place, (2, 9)))

    assert [finding.level for finding in found] == [FindingLevel.OK, FindingLevel.ERROR]
    assert "older than 2.12" in found[1].what
