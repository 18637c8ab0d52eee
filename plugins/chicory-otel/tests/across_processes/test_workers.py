"""Traces through real workers, over each broker, as a collector gets them."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from opentelemetry import baggage, context, propagate
from opentelemetry.sdk.trace import TracerProvider

from chicory import Chicory
from chicory.testing import eventually

from .collector import Collector, attributes_of
from .servers import BROKERS, broker_url

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

SECRET = "canary-" + "9f3b7c"

TASKS = '''
import asyncio, logging, os, time
from opentelemetry import baggage
from chicory import Chicory, RetryPolicy, TaskContext

app = Chicory()
log = logging.getLogger("shop")

@app.task(name="order", queue="orders")
async def order(secret: str) -> str:
    """In the first process: asks the second."""
    charged = await app.send_task("charge", [secret], queue="payments")
    return await charged.get(timeout=120)

@app.task(name="charge", queue="payments", retry_policy=RetryPolicy(retry_delay=0.01))
def charge(ctx: TaskContext, secret: str) -> str:
    """In the second, on a thread: fails once, then asks the third."""
    if ctx.retries == 0:
        raise ValueError(secret)
    mailed = app.run_sync(app.send_task("mail", [secret], queue="mails"))
    return mailed.get_sync(timeout=120)

@app.task(name="mail", queue="mails", execution="process")
def mail(secret: str) -> str:
    """In the third, in a child of it: sends what nobody waits for."""
    log.warning("mailing")
    app.run_sync(app.send_task("note", [secret], queue="orders"))
    return f"{secret} {baggage.get_baggage('tenant')} {os.getpid()}"

@app.task(name="note", queue="orders")
async def note(secret: str) -> None:
    raise LookupError(secret)

@app.task(name="ping", queue="orders")
async def ping() -> str:
    return "pong"

@app.task(name="block", queue="orders")
async def block() -> None:
    time.sleep(120)
'''


class Project:
    """A directory with ``shop.py``, and workers of it."""

    def __init__(self, folder, url):
        self.folder, self.url = folder, url
        self.processes = []
        (folder / "shop.py").write_text(TASKS)

    def start(self, queue, collector_url, **environment):
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("CHICORY_", "OTEL_"))}
        told = {
            "CHICORY_BROKER_URL": self.url,
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector_url,
            "OTEL_SERVICE_NAME": f"worker-{queue}",
            "PYTHONWARNINGS": "default",
            **environment,
        }
        log = self.folder / f"{len(self.processes)}-{queue}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "chicory", "worker", "shop:app", "--plugin", "otel", "--queue", queue],
                cwd=self.folder,
                env={**clean, **told},
                stdout=output,
                stderr=output,
            )
        process.log = log
        self.processes.append(process)
        return process

    def logs(self):
        return "\n".join(process.log.read_text() for process in self.processes)

    def end(self):
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()


@pytest.fixture
def collector():
    made = Collector()
    yield made
    made.close()


@pytest.fixture(params=BROKERS)
def project(request, tmp_path):
    with broker_url(request.param, tmp_path) as url:
        made = Project(tmp_path, url)
        yield made
        made.end()


@pytest.fixture
def first(tmp_path):
    """A project on the embedded default, for what does not depend on the broker."""
    with broker_url("sqlite", tmp_path) as url:
        made = Project(tmp_path, url)
        yield made
        made.end()


async def working(project, app, count):
    async def do():
        assert all(process.poll() is None for process in project.processes), project.logs()
        return len(await app.backend.get_active_workers()) >= count

    await eventually(do, within=120)


async def ended(process):
    await eventually(lambda: process.poll() is not None, within=120)
    assert process.returncode == 0, Path(process.log).read_text()


async def test_one_trace_goes_from_a_request_through_three_tasks_in_three_processes(project, collector):
    """A canary in arguments, results and errors is found nowhere: not in what is exported, nor in the logs of tracing."""
    for queue in ("orders", "payments", "mails"):
        project.start(queue, collector.url, OTEL_METRIC_EXPORT_INTERVAL="500", CHICORY_OTEL_SAMPLE_SECONDS="0.5")
    async with Chicory(broker=project.url) as app:
        await working(project, app, 3)

        # As the framework of a web application does with the headers of a request.
        asked = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "baggage": "tenant=acme"}
        token = context.attach(propagate.extract(asked))
        with TracerProvider(shutdown_on_exit=False).get_tracer("web").start_as_current_span("POST /orders"):
            assert baggage.get_baggage("tenant") == "acme"
            result = await app.send_task("order", [SECRET], queue="orders")
        context.detach(token)
        secret, tenant, child = (await result.get(timeout=180)).split()
        await eventually(lambda: "task_failed" in project.logs(), within=120)
        gauges = {"chicory.queue.depth", "chicory.queue.oldest_age", "chicory.worker.slots", "chicory.worker.slots_busy"}
        await eventually(lambda: collector.metrics >= gauges, within=120)

    for process in project.processes:
        process.send_signal(signal.SIGTERM)
    for process in project.processes:
        await ended(process)

    assert (secret, tenant) == (SECRET, "acme"), "baggage has come as far as the child of the third"
    names = {span.name for _, span in collector.spans}
    steps = {"process orders", "send payments", "process payments", "send mails", "process mails", "send orders"}
    assert names >= steps | {"ack orders", "retry payments", "ack payments", "ack mails"}
    assert {span.trace_id.hex() for _, span in collector.spans} == {asked["traceparent"][3:35]}
    assert len({where["service.instance.id"] for where, span in collector.spans if span.name.startswith("process")}) == 3
    assert collector.instances("send orders").isdisjoint(collector.instances("process mails")), "sent in the child"
    (mailed,) = collector.named("process mails")
    (sent,) = collector.named("send orders")
    assert sent.parent_span_id == mailed.span_id, "the context of the try is current in its child process"
    assert sorted(attributes_of(span)["chicory.task.attempt"] for span in collector.named("process payments")) == [1, 2]
    assert {attributes_of(span)["messaging.system"] for _, span in collector.spans} == {project.url.partition(":")[0]}
    assert collector.metrics >= {"chicory.tasks", "chicory.task.wait", "chicory.task.run", "chicory.publish", "chicory.retries"}
    assert int(child) not in {process.pid for process in project.processes}
    assert SECRET.encode() not in collector.bodies
    (line,) = [line for line in project.logs().splitlines() if '"mailing"' in line]
    assert mailed.trace_id.hex() in line and mailed.span_id.hex() in line
    (line,) = [line for line in project.logs().splitlines() if '"task_failed"' in line]
    assert mailed.trace_id.hex() in line, "what a worker says of a try names its trace too"


async def test_every_execution_has_been_exported_when_a_worker_has_drained(first, collector):
    process = first.start("orders", collector.url, OTEL_BSP_SCHEDULE_DELAY="60000")
    async with Chicory(broker=first.url) as app:
        await working(first, app, 1)
        for _ in range(20):
            await (await app.send_task("ping", queue="orders")).get(timeout=120)
        assert collector.named("process orders") == [], "they are held back until the end"
        process.send_signal(signal.SIGTERM)
        await ended(process)

    assert len(collector.named("process orders")) == 20
    assert len(collector.named("ack orders")) == 20


@pytest.mark.parametrize("kind", ["refuses", "is not there"])
async def test_a_collector_that_fails_touches_no_task_and_no_exit_code(first, kind):
    collector = Collector(status=500)
    url = collector.url
    if kind == "is not there":
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    process = first.start("orders", url, OTEL_BSP_SCHEDULE_DELAY="50", OTEL_METRIC_EXPORT_INTERVAL="100")
    try:
        async with Chicory(broker=first.url) as app:
            await working(first, app, 1)
            for _ in range(20):
                assert await (await app.send_task("ping", queue="orders")).get(timeout=120) == "pong"
            process.send_signal(signal.SIGTERM)
            await ended(process)
    finally:
        collector.close()

    assert (collector.refused > 0) is (kind == "refuses")


async def test_a_worker_that_its_watchdog_ends_has_exported_what_it_had(first, collector):
    process = first.start("orders", collector.url, OTEL_BSP_SCHEDULE_DELAY="60000", CHICORY_WORKER_STALL_LIMIT_SECONDS="2")
    async with Chicory(broker=first.url) as app:
        await working(first, app, 1)
        await (await app.send_task("ping", queue="orders")).get(timeout=120)
        await app.send_task("block", queue="orders")
        await eventually(lambda: process.poll() is not None, within=120)

    assert process.returncode == 70
    assert len(collector.named("process orders")) == 1
