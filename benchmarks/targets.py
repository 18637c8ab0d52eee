"""Every number that this project wants to reach, in its issues' words, and what a run says of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.measures import BY_KEY, Facts, Medians, of_broker


@dataclass(frozen=True)
class Target:
    """A measure of chicory on *broker*: at least (for what should be small: at most) *bound*, times the median of *of*."""

    broker: str
    key: str
    bound: float
    of: str = ""
    """Empty; a contender's name: its median of the same measure; ``own:MEASURE``: chicory's of another one."""

    def reference(self, facts: Facts, medians: Medians) -> float | None:
        """What *bound* is multiplied by; None if it was not measured."""
        if not self.of:
            return 1.0
        kind, _, key = self.of.rpartition(":")
        names = of_broker(facts, self.broker, "ours") if kind else [self.of]
        return next((medians[name][key if kind else self.key] for name in names if self._has(name, medians)), None)

    def _has(self, name: str, medians: Medians) -> bool:
        return (self.of.rpartition(":")[2] if ":" in self.of else self.key) in medians.get(name, {})

    def text(self, facts: Facts) -> str:
        measure = BY_KEY[self.key]
        sign = ">=" if measure.is_rate else "<="
        if not self.of:
            return f"{sign} {self.bound:,g} {measure.unit}".replace(" /s", "/s").strip()
        if self.of.startswith("own:"):
            return f"{sign} {self.bound:g}x {BY_KEY[self.of[4:]].title}"
        name = facts[self.of]["about"]["title"] if self.of in facts else self.of
        return f"{sign} {self.bound:g}x {name}"


@dataclass(frozen=True)
class Verdict:
    """What a run says of one target."""

    target: Target
    value: float
    wanted: float | None

    @property
    def factor(self) -> float | None:
        """How much of what is wanted was reached: 1 or more is enough."""
        return None if self.wanted is None else BY_KEY[self.target.key].fraction(self.value, self.wanted)

    @property
    def is_met(self) -> bool:
        return self.factor is not None and self.factor >= 1

    def text(self) -> str:
        if self.factor is None:
            return "no reference"
        return "met" if self.is_met else f"missed: {self.factor:.2f} of it"


def verdicts(facts: Facts, medians: Medians) -> list[Verdict]:
    """Of all targets whose measure is in *medians*."""
    found = []
    for target in TARGETS:
        for name in of_broker(facts, target.broker, "ours"):
            if target.key in medians.get(name, {}):
                reference = target.reference(facts, medians)
                wanted = None if reference is None else target.bound * reference
                found.append(Verdict(target, medians[name][target.key], wanted))
    return found


_PER_TASK = 5
"""Items for ever after 1,000 tasks that still mean none a task: what a queue and a worker keep about themselves."""

TARGETS: Sequence[Target] = (
    # Issue 2: the core and SQLite.
    Target("sqlite", "publish_one", 0.6, of="huey_sqlite"),
    Target("sqlite", "publish_gather", 30_000),
    Target("sqlite", "publish_many", 60_000),
    Target("sqlite", "run_results", 12_000),
    Target("sqlite", "run_results", 10, of="huey_sqlite"),
    Target("sqlite", "run_ignored", 15_000),
    Target("sqlite", "run_ignored", 7, of="huey_sqlite"),
    Target("sqlite", "run_two", 1.2, of="own:run_results"),
    Target("sqlite", "trip_p50", 3),
    Target("sqlite", "trip_p99", 10),
    Target("sqlite", "core_asyncio", 40_000),
    Target("sqlite", "core_uvloop", 40_000),
    Target("sqlite", "import", 250),
    Target("sqlite", "help", 0.6),
    Target("sqlite", "idle_rss", 60),
    Target("sqlite", "idle_cpu", 1),
    # Issue 4: Redis.
    Target("redis", "publish_one", 4_000),
    Target("redis", "publish_gather", 35_000),
    Target("redis", "publish_gather", 4, of="saq"),
    Target("redis", "publish_many", 60_000),
    Target("redis", "publish_many", 6, of="rq"),
    Target("redis", "run_results", 20_000),
    Target("redis", "run_results", 13, of="saq"),
    Target("redis", "run_ignored", 25_000),
    Target("redis", "run_ignored", 8, of="dramatiq"),
    Target("redis", "run_default", 0.7, of="own:run_results"),
    Target("redis", "run_two", 1.3, of="own:run_results"),
    Target("redis", "io_bound", 1.15),
    Target("redis", "threads", 8_000),
    Target("redis", "trip_p50", 1.2),
    Target("redis", "trip_p99", 4),
    Target("redis", "commands", 0.2),
    Target("redis", "requests", 0.2),
    Target("redis", "left_items", _PER_TASK),
    Target("redis", "first_task", 1.4),
    Target("redis", "idle_rss", 75),
    Target("redis", "grow_100k", 0.8, of="own:grow_1k"),
    Target("redis", "grow_1m", 0.8, of="own:grow_1k"),
    Target("redis", "grow_rss_100k", 1.1, of="own:grow_rss_1k"),
    Target("redis", "grow_rss_1m", 1.1, of="own:grow_rss_1k"),
    # Issue 5: NATS.
    Target("nats", "publish_gather", 17_000),
    Target("nats", "run_ignored", 10_000),
    Target("nats", "run_results", 6_000),
    Target("nats", "trip_p50", 3),
    Target("nats", "trip_p99", 10),
    Target("nats", "left_items", _PER_TASK),
)
