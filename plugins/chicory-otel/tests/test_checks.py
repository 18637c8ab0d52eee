"""What ``chicory doctor`` says about telemetry."""

import asyncio
import os

import pytest

from chicory import Chicory
from chicory.doctor import examine
from chicory.plugin import FindingLevel
from chicory_otel import checks
from chicory_otel.checks import Checks
from chicory_otel.settings import OtelConfig


class Nobody:
    """No SDK is set up."""

    def ask(self):
        return False


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    """An environment that says nothing, in a process that has no SDK yet."""
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    for name in ("is_traced", "is_measured"):
        monkeypatch.setattr(checks, name, Nobody())


@pytest.fixture
async def collector():
    """Something that listens; its port."""
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def found(**settings):
    return [(finding.level, finding.what, finding.fix) for finding in await Checks(OtelConfig(**settings))()]


async def test_the_doctor_asks():
    (finding,) = [found for found in await examine(Chicory(broker="memory://")) if found.check == "otel"]
    assert "go nowhere" in finding.what


async def test_telemetry_that_goes_nowhere_is_said():
    ((level, what, fix),) = await found()
    assert level is FindingLevel.WARNING
    assert "go nowhere" in what
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" in fix


async def test_a_collector_that_is_there_is_found(monkeypatch, collector):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector}")
    findings = await found()
    assert {level for level, _, _ in findings} == {FindingLevel.OK}
    assert [what for _, what, _ in findings] == [
        "traces are exported by otlp_proto_http",
        f"somebody listens at 127.0.0.1:{collector}, where traces are sent to",
        "metrics are exported by otlp_proto_http",
        f"somebody listens at 127.0.0.1:{collector}, where metrics are sent to",
    ]


async def test_a_collector_that_is_not_there_is_a_warning(monkeypatch, collector):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", f"http://127.0.0.1:{collector}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:1")
    bad = [(level, what) for level, what, _ in await found() if level is not FindingLevel.OK]
    assert [level for level, _ in bad] == [FindingLevel.WARNING]
    assert bad[0][1].startswith("nobody listens at 127.0.0.1:1, where traces are sent to (ConnectionRefusedError)")


@pytest.mark.parametrize(
    ("environment", "text"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:port"}, "is no address of a collector"),
        ({"OTEL_TRACES_EXPORTER": "pigeon"}, "traces are to be exported by pigeon, and no package here has that"),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, "write one of http/protobuf, grpc"),
    ],
)
async def test_what_keeps_a_worker_from_exporting_is_an_error(monkeypatch, environment, text):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    errors = [what for level, what, _ in await found() if level is FindingLevel.ERROR]
    assert errors
    assert text in errors[0]


async def test_without_the_sdk_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setattr(checks, "is_installed", lambda: False)
    ((level, _, fix),) = await found(setup=True)
    assert (level, fix) == (FindingLevel.ERROR, 'pip install "chicory-otel[otlp]"')
