"""celery on Redis with ``acks_late`` and ``reject_on_worker_lost``: acknowledged when the task ended.

A pool of 32 threads, faster with no-ops than a pool of processes on two cores (as fast as 8 threads within the noise);
the row with many waiting tasks has as many threads as tasks. Gossip, mingle and events are off, as the optimising guide
says for speed. Two processes are two commands. The memory and idle rows are of the thread pool too: its default, a pool
of processes, takes more. All of its tasks are sync, so the row of sync tasks is the same as that of running.
"""

from __future__ import annotations

from typing import Any

from celery import Celery

from benchmarks import tasks
from benchmarks.adapter import About, Row, Setup, SyncAdapter, script
from benchmarks.probes import Probe, RedisProbe
from benchmarks.tasks import SERVER

ABOUT = About(title="celery", broker="redis", guarantee="at least once (acks late)", scale=0.2)
_FASTEST, _DEFAULT = 32, 8
_URL = SERVER or "redis://127.0.0.1"

app = Celery("benchmark", broker=_URL, backend=_URL)
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=4,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
    result_expires=3600,
)

_KINDS: dict[str, Any] = {
    name: app.task(function, name=name, ignore_result=name == "ignored")
    for name, function in {
        "kept": tasks.kept_sync,
        "ignored": tasks.ignored_sync,
        "slept": tasks.slept_sync,
        "computed": tasks.computed,
        "carried": tasks.carried_sync,
    }.items()
}


class _Adapter(SyncAdapter):
    about = ABOUT

    def commands(self, setup: Setup) -> list[list[str]]:
        pool = ["--pool", "threads", "--concurrency", str(setup.tasks(_FASTEST, _DEFAULT))]
        quiet = ["--loglevel", "WARNING", "--without-gossip", "--without-mingle"]
        command = [script("celery"), "-A", f"{__name__}:app", "worker", *pool, *quiet]
        return [[*command, "-n", f"worker{number}@%h"] for number in range(setup.processes)]

    def send(self, kind: str, row: Row) -> Any:
        return _KINDS[kind].delay(*row)

    def wait(self, sent: Any) -> Any:
        return sent.get(timeout=10)

    def unsettled(self, probe: Probe) -> int:
        assert isinstance(probe, RedisProbe)  # noqa: S101 - narrows the type
        return int(sum(probe.ask_all([("LLEN", "celery"), ("HLEN", "unacked")])))

    def results(self, probe: Probe) -> int | None:
        """Stored before the acknowledgement."""
        return None


ADAPTER = _Adapter()
