"""The metrics: their names, units and labels, and recording them at the least cost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import TYPE_CHECKING, final

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Meter, Observation

from chicory_otel import conventions as names
from chicory_otel.failing import Failures, is_measured

if TYPE_CHECKING:
    from chicory.plugin import WorkerView

__all__ = ["MOST_TASKS", "OTHER", "Instruments", "instruments"]

MOST_TASKS = 200
"""As many names of tasks become labels; later ones are `OTHER`. A label with thousands of values ruins a time-series base."""
OTHER = "other"

Labels = Mapping[str, str]


@final
class Instruments:
    """The instruments of this process. Without an SDK they do nothing, and ``is_on`` says so."""

    def __init__(self, meter: Meter, failures: Failures) -> None:
        self.failures = failures
        self.workers: dict[str, WorkerView] = {}
        """Those that work in this process."""
        self.queues: dict[str, dict[str, float]] = {}
        """By queue: messages by state, and the ``age`` of the oldest. Only where this process samples."""
        self._tasks: set[str] = set()
        counter, histogram = meter.create_counter, _histogram(meter)

        self.wait = histogram("chicory.task.wait", "From when a task was due to the begin of a try", names.LONG_BOUNDARIES)
        self.run = histogram("chicory.task.run", "How long a try took", names.LONG_BOUNDARIES)
        self.tasks = counter("chicory.tasks", "{task}", "Tries that ended, by outcome")
        self.retries = counter("chicory.retries", "{retry}", "Retries that were scheduled")
        self.dead = counter("chicory.dead", "{task}", "Tasks that became dead letters")
        self.redeliveries = counter("chicory.redeliveries", "{delivery}", "Deliveries of what was delivered before")
        self.lease_lost = counter("chicory.lease_lost", "{delivery}", "Deliveries that were lost to another worker")
        self.loop_lag = histogram("chicory.loop.lag", "How late the task loop turned", names.DURATION_BOUNDARIES)
        self.reconnects = counter("chicory.broker.reconnects", "{reconnect}", "Times that the broker answered again")
        self.broker_op = histogram("chicory.broker.op", "Round trips to broker and backend", names.DURATION_BOUNDARIES)
        self.store_errors = counter("chicory.result_store.errors", "{error}", "Times that results could not be stored")
        self.publish = counter("chicory.publish", "{message}", "Messages that were sent, by outcome")

        self.sent = counter(names.SENT_MESSAGES, "{message}", "Messages that were sent")
        self.consumed = counter(names.CONSUMED_MESSAGES, "{message}", "Messages that were delivered")
        self.operation = histogram(names.OPERATION_DURATION, "Duration of an operation", names.DURATION_BOUNDARIES)
        self.process = histogram(names.PROCESS_DURATION, "Duration of processing a message", names.LONG_BOUNDARIES)
        self._observe(meter)

    @property
    def is_on(self) -> bool:
        """Somebody reads them. Asked again until it is so: an SDK may be set up late."""
        return is_measured()

    def task_label(self, name: str | None) -> str:
        """The label of the task *name*; None is one that is not registered here."""
        if name in self._tasks:
            return name
        if name is None or len(self._tasks) >= MOST_TASKS:
            return OTHER
        self._tasks.add(name)
        return name

    def _observe(self, meter: Meter) -> None:
        def gauge(name: str, unit: str, what: str, look: Callable[[], Iterable[Observation]]) -> None:
            def observed(_: CallbackOptions) -> Iterable[Observation]:
                return list(look())

            meter.create_observable_gauge(name, [observed], unit, what)

        gauge("chicory.queue.depth", "{message}", "Messages of a queue, by state", self._depths)
        gauge("chicory.queue.oldest_age", "s", "Age of the oldest message that is ready", self._ages)
        gauge("chicory.worker.slots", "{slot}", "Tasks that may run at once", self._slots)
        gauge("chicory.worker.slots_busy", "{slot}", "Tasks that run", self._busy)
        meter.create_observable_counter(
            "chicory.otel.failures", [lambda _: self._failures()], "{failure}", "What tracing could not do"
        )

    def _depths(self) -> Iterable[Observation]:
        for queue, numbers in list(self.queues.items()):
            for state, number in numbers.items():
                if state != "age":
                    yield Observation(number, {"queue": queue, "state": state})

    def _ages(self) -> Iterable[Observation]:
        for queue, numbers in list(self.queues.items()):
            yield Observation(numbers["age"], {"queue": queue})

    def _slots(self) -> Iterable[Observation]:
        for pool, (slots, _) in self._pools().items():
            yield Observation(slots, {"pool": pool})

    def _busy(self) -> Iterable[Observation]:
        for pool, (_, busy) in self._pools().items():
            yield Observation(busy, {"pool": pool})

    def _pools(self) -> dict[str, tuple[int, int]]:
        """By the queues that they read, the workers of this process: their slots, and how many are busy."""
        pools: dict[str, tuple[int, int]] = {}
        for worker in list(self.workers.values()):
            stats = worker.get_stats()
            slots, busy = pools.get(stats.queue, (0, 0))
            pools[stats.queue] = slots + stats.concurrency, busy + stats.active_tasks
        return pools

    def _failures(self) -> Iterable[Observation]:
        return [Observation(count, {"place": place}) for (place, _), count in list(self.failures.counts.items())]


def _histogram(meter: Meter) -> Callable[[str, str, tuple[float, ...]], metrics.Histogram]:
    def make(name: str, what: str, boundaries: tuple[float, ...]) -> metrics.Histogram:
        return meter.create_histogram(name, "s", what, explicit_bucket_boundaries_advisory=boundaries)

    return make


@cache
def instruments() -> Instruments:
    """Those of this process: a name can be registered once."""
    meter = metrics.get_meter("chicory_otel", schema_url=names.SCHEMA_URL)
    return Instruments(meter, Failures())
