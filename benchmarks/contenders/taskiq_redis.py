"""taskiq with ``RedisStreamBroker`` of taskiq-redis: a task is acknowledged when its result is saved.

Its command takes uvloop by itself, redis-py takes hiredis. A task without result returns through the same path; taskiq has
no switch for one task, so the run without results has no result backend. 100 messages a read, as many as run at once by
default. The tight round trip looks for the result each millisecond (``check_interval``; 0.2 s by default).
"""

from __future__ import annotations

from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

from benchmarks.adapter import About, Setup
from benchmarks.contenders.of_taskiq import TaskiqAdapter
from benchmarks.probes import Probe, RedisProbe
from benchmarks.tasks import SERVER

ABOUT = About(title="taskiq", broker="redis", guarantee="at least once (ack when saved)")
_URL = SERVER or "redis://127.0.0.1"

broker = RedisStreamBroker(_URL, xread_count=100)
if Setup.from_environment().results:
    broker = broker.with_result_backend(RedisAsyncResultBackend(_URL, result_ex_time=3600))


class _Adapter(TaskiqAdapter):
    about = ABOUT

    def unsettled(self, probe: Probe) -> int:
        """What is not read yet, and what is read and not acknowledged. (Messages stay in the stream for ever.)"""
        assert isinstance(probe, RedisProbe)  # noqa: S101 - narrows the type
        (group,) = probe.ask("XINFO", "GROUPS", broker.queue_name)
        facts = dict(zip(group[::2], group[1::2], strict=True))
        return int(facts[b"lag"]) + int(facts[b"pending"])

    def results(self, probe: Probe) -> int | None:
        """Saved before the acknowledgement."""
        return None


ADAPTER = _Adapter(broker, __name__)
