"""dramatiq on Redis: messages are acknowledged when their task ended.

32 threads a process (8 by default, which was as fast within the noise); the row with many waiting tasks has as many
threads as tasks. Its middleware is the default one (without Prometheus), with results where they are kept. All of its
tasks are sync, so the row of sync tasks is the same as that of running. It waits for results with a blocking command.
"""

from __future__ import annotations

from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from benchmarks import tasks
from benchmarks.adapter import About, Row, Setup, SyncAdapter, script
from benchmarks.probes import Probe, RedisProbe
from benchmarks.tasks import SERVER

ABOUT = About(title="dramatiq", broker="redis", guarantee="at least once")
_FASTEST, _DEFAULT = 32, 8
_URL = SERVER or "redis://127.0.0.1"

broker = RedisBroker(url=_URL)
broker.add_middleware(Results(backend=RedisBackend(url=_URL)))
dramatiq.set_broker(broker)

_KINDS: dict[str, Any] = {
    name: dramatiq.actor(function, actor_name=name, store_results=name != "ignored")  # type: ignore[call-overload] # an option of Results
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
        threads = setup.tasks(_FASTEST, _DEFAULT)
        return [[script("dramatiq"), __name__, "--processes", str(setup.processes), "--threads", str(threads)]]

    def send(self, kind: str, row: Row) -> Any:
        return _KINDS[kind].send(*row)

    def wait(self, sent: Any) -> Any:
        return sent.get_result(block=True, timeout=10_000)

    def unsettled(self, probe: Probe) -> int:
        """A message stays in the hash until it is acknowledged."""
        assert isinstance(probe, RedisProbe)  # noqa: S101 - narrows the type
        return int(probe.ask("HLEN", "dramatiq:default.msgs"))

    def results(self, probe: Probe) -> int | None:
        """Stored before the acknowledgement."""
        return None


ADAPTER = _Adapter()
