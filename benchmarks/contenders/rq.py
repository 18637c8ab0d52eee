"""rq on Redis: one job at a time; a job whose worker died is moved to the registry of failed ones.

``SimpleWorker``, which is several times faster than its default, a forked process for each job. Results go with
``result_ttl``; 0 keeps none. It sends many in a pipeline with ``enqueue_many``. Two processes are two commands.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis import Redis
from rq import Queue

from benchmarks import tasks
from benchmarks.adapter import About, Row, Setup, SyncAdapter, script
from benchmarks.probes import Probe, RedisProbe
from benchmarks.tasks import SERVER

ABOUT = About(title="rq", broker="redis", guarantee="lost jobs go to failed", at_least_once=False, scale=0.05)
_URL = SERVER or "redis://127.0.0.1"
_TTL = 3600

_queue = Queue(connection=Redis.from_url(_URL))
_KINDS: dict[str, Any] = {
    "kept": tasks.kept_sync,
    "ignored": tasks.ignored_sync,
    "slept": tasks.slept_sync,
    "computed": tasks.computed,
    "carried": tasks.carried_sync,
}


class _Adapter(SyncAdapter):
    about = ABOUT
    bulk = True

    def commands(self, setup: Setup) -> list[list[str]]:
        command = [script("rq"), "worker", "--url", _URL, "--worker-class", "rq.SimpleWorker", "--quiet", "default"]
        return [command] * setup.processes

    def send(self, kind: str, row: Row) -> Any:
        return _queue.enqueue(_KINDS[kind], *row, result_ttl=_ttl(kind))

    def send_many(self, kind: str, rows: Sequence[Row]) -> None:
        _queue.enqueue_many([Queue.prepare_data(_KINDS[kind], row, result_ttl=_ttl(kind)) for row in rows])

    def wait(self, sent: Any) -> Any:
        return sent.latest_result(timeout=10).return_value

    def unsettled(self, probe: Probe) -> int:
        assert isinstance(probe, RedisProbe)  # noqa: S101 - narrows the type
        return int(sum(probe.ask_all([("LLEN", "rq:queue:default"), ("ZCARD", "rq:wip:default")])))

    def results(self, probe: Probe) -> int | None:
        """Stored in the pipeline that ends the job."""
        return None


def _ttl(kind: str) -> int:
    return 0 if kind == "ignored" else _TTL


ADAPTER = _Adapter()
