"""What is measured, how it is shown, and what this project wants to reach."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

OURS, FLOOR = "chicory", "sqlite3"
Medians = Mapping[str, Mapping[str, float]]
"""Contender, measure: median."""


@dataclass(frozen=True)
class Target:
    """At least *bound*, times the median of *of*: the best peer, or another of our own measures."""

    bound: float
    of: str | None = None

    def wanted(self, measure: Measure, medians: Medians) -> float | None:
        """The number to reach; None if what it refers to was not measured."""
        if self.of is None:
            return self.bound
        reference = best_peer(measure, medians) if self.of == "peer" else medians[OURS].get(self.of)
        return None if reference is None else self.bound * reference


@dataclass(frozen=True)
class Measure:
    """One row of the table."""

    key: str
    title: str
    unit: str = "/s"
    floor: str | None = None
    targets: tuple[Target, ...] = ()
    is_rate: bool = True

    def fraction(self, value: float, wanted: float) -> float:
        """How much of *wanted* is reached: 1 or more is enough. For what should be small, the inverse counts."""
        return value / wanted if self.is_rate else wanted / value


def best_peer(measure: Measure, medians: Medians) -> float | None:
    """The best median of the contenders that are neither ours nor the floor."""
    peers = [values[measure.key] for name, values in medians.items() if name not in (OURS, FLOOR) and measure.key in values]
    if not peers:
        return None
    return max(peers) if measure.is_rate else min(peers)


def _small(key: str, title: str, unit: str, bound: float | None = None) -> Measure:
    return Measure(key, title, unit, targets=() if bound is None else (Target(bound),), is_rate=False)


MEASURES: Sequence[Measure] = (
    Measure("publish_one", "publish, one await after another", floor="insert_full", targets=(Target(0.6, of="peer"),)),
    Measure("publish_gather", "publish, `gather` of 100", floor="insert_hundred", targets=(Target(30_000),)),
    Measure("publish_many", "publish, `delay_many` of 100", floor="insert_hundred", targets=(Target(60_000),)),
    Measure("run_results", "run, results stored", floor="claim_delete", targets=(Target(12_000), Target(10, of="peer"))),
    Measure(
        "run_results_wide",
        "the same, many at once (`--concurrency 100`, huey `-w 8`)",
        floor="claim_delete",
        targets=(Target(12_000),),
    ),
    Measure("run_ignored", "run, results ignored", floor="claim_delete", targets=(Target(15_000), Target(7, of="peer"))),
    Measure("run_two", "2 worker processes, results stored", floor="claim_delete", targets=(Target(1.2, of="run_results"),)),
    _small("trip_p50", "round trip, idle, p50", "ms", 3),
    _small("trip_p95", "round trip, idle, p95", "ms"),
    _small("trip_p99", "round trip, idle, p99", "ms", 10),
    _small("trip_default_p50", "round trip with default polling, p50", "ms"),
    _small("trip_default_p99", "round trip with default polling, p99", "ms"),
    Measure("core_asyncio", "core alone, memory broker, asyncio, one core", targets=(Target(40_000),)),
    Measure("core_uvloop", "core alone, memory broker, uvloop, one core", targets=(Target(40_000),)),
    _small("import", "import, beyond pydantic_settings", "ms", 250),
    _small("help", "`chicory --help`", "s", 0.6),
    _small("first_task", "worker command to first task done", "s"),
    _small("idle_rss", "idle worker, resident memory", "MB", 60),
    _small("idle_cpu", "idle worker, CPU", "%", 1),
    Measure("insert_full", "one insert a transaction, FULL"),
    Measure("insert_normal", "one insert a transaction, NORMAL"),
    Measure("insert_hundred", "100 inserts a transaction, FULL"),
    Measure("claim_delete", "claim 100, delete 100 a transaction, FULL"),
)
