"""The files of ``examples/observability``: what they name is what is emitted."""

import asyncio
import contextlib
import re
from pathlib import Path

import prometheus_client
import pytest
import yaml
from opentelemetry import trace
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider

from chicory import Chicory, TaskMessage, TaskState, Worker
from chicory.errors import BackendConnectionError
from chicory.plugin import Attempt, Decision, Delivery, Envelope, Event, Outcome, SettledBatch
from chicory_otel import OtelConfig
from chicory_otel.failing import Failures
from chicory_otel.instruments import Instruments
from chicory_otel.life import life, listener
from chicory_otel.processing import ProcessTracing
from chicory_otel.publishing import PublishTracing
from chicory_otel.queues import QueueSampler
from chicory_otel.settling import Settling

FOLDER = Path(__file__).parents[3] / "examples" / "observability"
PLACE = {"messaging.system": "memory"}


def load(name):
    return yaml.safe_load((FOLDER / name).read_text())


RULES = [rule for group in load("alerts.yaml")["groups"] for rule in group["rules"]]
TABLE = {
    "chicory_queue_depth": {"queue", "state"},
    "chicory_queue_oldest_age_seconds": {"queue"},
    "chicory_task_wait_seconds": {"queue", "task"},
    "chicory_task_run_seconds": {"queue", "task", "outcome"},
    "chicory_tasks_total": {"queue", "task", "outcome"},
    "chicory_retries_total": {"task", "reason"},
    "chicory_dead_total": {"task", "reason"},
    "chicory_redeliveries_total": {"queue"},
    "chicory_lease_lost_total": {"queue"},
    "chicory_worker_slots": {"pool"},
    "chicory_worker_slots_busy": {"pool"},
    "chicory_loop_lag_seconds": set(),
    "chicory_broker_reconnects_total": set(),
    "chicory_broker_op_seconds": {"operation"},
    "chicory_result_store_errors_total": set(),
    "chicory_publish_total": {"outcome"},
}
"""What dashboards need, by their names in Prometheus, with their labels."""


def an_attempt(count):
    envelope = Envelope(id="17", queue="mail", body=b"")
    delivery = Delivery(envelope=envelope, receipt="1", delivery_count=count, lease_seconds=30, received_at=0)
    return Attempt(
        delivery=delivery, worker_id="w", message=TaskMessage(name="a", enqueued_at=Chicory(broker="memory").clock.now())
    )


async def exercise(made):
    """Let each part record what it records, by the code that records it."""
    app, settings = Chicory(broker="memory"), OtelConfig()
    settling = Settling(trace.get_tracer("t"), made, PLACE, semconv=False)
    layer = ProcessTracing(trace.get_tracer("t"), made, settling, PLACE, app.clock, mode=settings.trace_mode, semconv=False)
    for outcome in (
        Outcome(),
        Outcome(error=ValueError(), decision=Decision.RETRY),
        Outcome(error=ValueError(), state=TaskState.DEAD_LETTERED, reason="error"),
    ):

        async def ended(_, outcome=outcome):
            return outcome

        await layer(an_attempt(2), ended)

    async def sent(messages): ...

    await PublishTracing(trace.get_tracer("t"), made, PLACE, semconv=False)([TaskMessage(name="a")], sent)
    settling(SettledBatch(seconds=0.1, error=BackendConnectionError("memory://", "gone")))
    listening = listener(made, settings)
    for kind in ("task.lease_lost", "broker.connected"):
        listening.sink(Event(kind=kind, at=app.clock.now(), queue="mail"))


@contextlib.asynccontextmanager
async def all_of_it():
    """What Prometheus reads of one process in which everything has happened: labels by name."""
    reader = PrometheusMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    try:
        made = Instruments(provider.get_meter("chicory_otel"), Failures())
        await exercise(made)
        app = Chicory(broker="memory")
        worker = Worker(app)
        async with app, life(app, worker, made, OtelConfig()):
            sampler = QueueSampler(app, worker, made, 10)
            async with app.broker_twin() as broker:
                sampler._report(await sampler._sample(broker, None))
            while "chicory_loop_lag_seconds" not in (found := labels_by_name()):
                await asyncio.sleep(0.05)
            yield found
    finally:
        provider.shutdown()


def labels_by_name():
    found = {}
    for family in prometheus_client.REGISTRY.collect():
        if not family.name.startswith("chicory"):
            continue
        for sample in family.samples:
            name = re.sub(r"_(bucket|sum|count)$", "", sample.name) if family.type == "histogram" else sample.name
            own = {label for label in sample.labels if not label.startswith("otel_scope")} - {"le", "error_type"}
            found.setdefault(name, set()).update(own)
    return found


async def test_what_dashboards_need_is_emitted_with_its_labels():
    async with all_of_it() as found:
        assert {name: found.get(name) for name in TABLE} == TABLE


def test_each_rule_names_what_is_emitted():
    for rule in RULES:
        names = set(re.findall(r"\bchicory_\w+", rule["expr"]))
        assert names, rule["alert"]
        unknown = {re.sub(r"_bucket$", "", name) for name in names} - TABLE.keys()
        assert unknown == set(), rule["alert"]
        known = set().union(*(TABLE[re.sub(r"_bucket$", "", name)] for name in names)) | {"le"}
        used = {label.strip() for labels in re.findall(r"by \(([^)]*)\)", rule["expr"]) for label in labels.split(",")}
        used |= set(re.findall(r"(\w+)(?:=~|!=|=)\"", rule["expr"]))
        assert used <= known, rule["alert"]
        said = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
        assert said <= used, f"{rule['alert']}: what the summary names must survive the expression"


def test_outcomes_in_rules_are_outcomes():
    outcomes = {"success", "failure", "retry", "dead", "timeout", "cancelled", "lost"}
    used = {
        word
        for rule in RULES
        for words in re.findall(r'chicory_tasks_total\{outcome=~?"([^"]*)"', rule["expr"])
        for word in words.split("|")
    }

    assert used
    assert used <= outcomes


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_parentheses_of_a_rule_are_closed(rule):
    pairs = {")": "(", "}": "{", "]": "["}
    depth = []
    for sign in re.sub(r'"[^"]*"', "", rule["expr"]):
        if sign in pairs.values():
            depth.append(sign)
        elif sign in pairs:
            assert depth.pop() == pairs[sign]
    assert depth == []


def test_the_collector_has_each_part_that_its_pipelines_name():
    config = load("collector.yaml")

    for name, pipeline in config["service"]["pipelines"].items():
        for part in ("receivers", "processors", "exporters"):
            assert set(pipeline[part]) <= config[part].keys(), name
    assert config["receivers"]["otlp"]["protocols"]["http"]["endpoint"].endswith(":4318"), "where OTLP over HTTP goes"
