"""What is measured, how it is shown, and which floor stands beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Medians = Mapping[str, Mapping[str, float]]
"""Contender, measure: median."""
Facts = Mapping[str, Mapping[str, Any]]
"""Contender: what it says of itself."""
BROKERS = {"sqlite": "SQLite", "redis": "Redis", "nats": "NATS"}


@dataclass(frozen=True)
class Measure:
    """One row of the tables."""

    key: str
    title: str
    unit: str = "/s"
    floors: Mapping[str, str] = field(default_factory=dict)
    """Broker: the measure of its floor that stands beside this one."""
    is_rate: bool = True

    def fraction(self, value: float, wanted: float) -> float:
        """How much of *wanted* is reached: 1 or more is enough. For what should be small, the inverse counts."""
        if self.is_rate:
            return value / wanted
        return wanted / value if value else float("inf")


def of_broker(facts: Facts, broker: str, role: str) -> list[str]:
    """Its contenders of that role."""
    return [name for name, fact in facts.items() if fact["about"]["broker"] == broker and fact["about"]["role"] == role]


def best(measure: Measure, names: Sequence[str], medians: Medians) -> str | None:
    """Which of *names* is the best at it."""
    having = [name for name in names if measure.key in medians.get(name, {})]
    return (max if measure.is_rate else min)(having, key=lambda name: medians[name][measure.key], default=None)


def _small(key: str, title: str, unit: str) -> Measure:
    return Measure(key, title, unit, is_rate=False)


_RUN = {"sqlite": "claim_delete", "redis": "redis_drain", "nats": "nats_drain_confirmed"}

MEASURES: Sequence[Measure] = (
    Measure(
        "publish_one",
        "publish, one await after another",
        floors={"sqlite": "insert_full", "redis": "redis_one", "nats": "nats_one"},
    ),
    Measure(
        "publish_gather",
        "publish, `gather` of 100",
        floors={"sqlite": "insert_hundred", "redis": "redis_gather", "nats": "nats_gather"},
    ),
    Measure(
        "publish_many",
        "publish, bulk call of 100",
        floors={"sqlite": "insert_hundred", "redis": "redis_script", "nats": "nats_window"},
    ),
    Measure("run_results", "run, results stored", floors=_RUN),
    Measure(
        "run_ignored",
        "run, results ignored",
        floors={"sqlite": "claim_delete", "redis": "redis_drain_ignored", "nats": "nats_drain"},
    ),
    Measure("run_default", "run, results stored, default concurrency", floors=_RUN),
    Measure("run_two", "2 worker processes, results stored", floors=_RUN),
    Measure("threads", "sync no-op in threads, results stored", floors=_RUN),
    _small("io_bound", "2,000 tasks of 50 ms, 100 at once (ideal 1 s)", "s"),
    Measure("cpu_bound", "CPU-bound tasks, 2 processes", floors={"sqlite": "cpu_floor"}),
    Measure("payload_run", "run, 100 KB each"),
    _small("trip_p50", "round trip, idle, p50", "ms"),
    _small("trip_p95", "round trip, idle, p95", "ms"),
    _small("trip_p99", "round trip, idle, p99", "ms"),
    _small("trip_default_p50", "round trip, idle, default polling, p50", "ms"),
    _small("trip_default_p99", "round trip, idle, default polling, p99", "ms"),
    _small("loaded_p50", "round trip at half of its own load, p50", "ms"),
    _small("loaded_p95", "round trip at half of its own load, p95", "ms"),
    _small("loaded_p99", "round trip at half of its own load, p99", "ms"),
    _small("shared_p50", "round trip beside 300 tasks a second, p50", "ms"),
    _small("shared_p95", "round trip beside 300 tasks a second, p95", "ms"),
    _small("shared_p99", "round trip beside 300 tasks a second, p99", "ms"),
    _small("first_task", "worker command to first task done", "s"),
    _small("idle_rss", "idle worker, resident memory", "MB"),
    _small("rss_after", "the same after 20,000 tasks", "MB"),
    _small("idle_cpu", "idle worker, CPU", "%"),
    _small("idle_commands", "idle worker, server commands", "a second"),
    _small("commands", "server commands a task, results ignored, those in scripts included", ""),
    _small("requests", "requests that the server read a task, a pipeline or script call being one", ""),
    _small("left_items", "left after 1,000 tasks without results, for ever", "items"),
    _small("left_expiring", "left after 1,000 tasks without results, inside a time to live", "items"),
    Measure("grow_1k", "backlog of 1,000"),
    Measure("grow_10k", "backlog of 10,000"),
    Measure("grow_100k", "backlog of 100,000"),
    Measure("grow_1m", "backlog of 1,000,000"),
    _small("grow_rss_1k", "worker's memory after 1,000", "MB"),
    _small("grow_rss_10k", "worker's memory after 10,000", "MB"),
    _small("grow_rss_100k", "worker's memory after 100,000", "MB"),
    _small("grow_rss_1m", "worker's memory after 1,000,000", "MB"),
    Measure("core_asyncio", "core alone, memory broker, asyncio, one core"),
    Measure("core_uvloop", "core alone, memory broker, uvloop, one core"),
    _small("import", "import, beyond pydantic_settings", "ms"),
    _small("help", "`chicory --help`", "s"),
)
FLOORS: Sequence[Measure] = (
    Measure("insert_full", "one insert a transaction, FULL"),
    Measure("insert_normal", "one insert a transaction, NORMAL"),
    Measure("insert_hundred", "100 inserts a transaction, FULL"),
    Measure("claim_delete", "claim 100, delete 100 a transaction, FULL"),
    Measure("cpu_floor", "the CPU-bound work in two bare processes"),
    Measure("redis_one", "XADD, one await after another"),
    Measure("redis_gather", "XADD, `gather` of 100 on a pool"),
    Measure("redis_pipeline", "XADD, pipeline of 100"),
    Measure("redis_script", "XADD, 100 in one script call"),
    Measure("redis_drain", "read 100, settle with results in one script call"),
    Measure("redis_drain_ignored", "read 100, settle in one script call"),
    Measure("server_xadd", "the server's own benchmark, XADD, 50 clients"),
    Measure("server_xadd_pipelined", "the same, 50 commands a pipeline"),
    Measure("nats_one", "publish, one await after another"),
    Measure("nats_gather", "publish, `gather` of 100"),
    Measure("nats_window", "`publish_async`, 1,000 unconfirmed at most"),
    Measure("nats_drain", "fetch 100, acknowledge each"),
    Measure("nats_drain_confirmed", "fetch 100, acknowledge each, confirmed, 100 at once"),
)
BY_KEY: Mapping[str, Measure] = {measure.key: measure for measure in (*MEASURES, *FLOORS)}
