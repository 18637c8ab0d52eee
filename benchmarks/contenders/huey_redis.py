"""huey on Redis with its default storage, a list, read with a blocking pop; ``notify_result`` for the tight round trip.

8 threads were its fastest in one process.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from huey import RedisHuey

from benchmarks.adapter import About, Producer, Setup
from benchmarks.contenders.of_huey import HueyAdapter
from benchmarks.probes import Probe, RedisProbe
from benchmarks.tasks import SERVER

ABOUT = About(title="huey", broker="redis", guarantee="at most once", at_least_once=False)
_THREADS = 8


def _notifies(setup: Setup) -> bool:
    """In the tight round trip: elsewhere nobody waits for results, and it would cost two commands a task."""
    return setup.tight and setup.concurrency == -1


huey = RedisHuey("benchmark", url=SERVER or "redis://127.0.0.1", notify_result=_notifies(Setup.from_environment()))


class _Adapter(HueyAdapter):
    about = ABOUT

    @contextlib.contextmanager
    def producer(self, setup: Setup) -> Iterator[Producer]:
        huey.storage.notify_result = _notifies(setup)
        with super().producer(setup) as producer:
            yield producer

    def unsettled(self, probe: Probe) -> int:
        assert isinstance(probe, RedisProbe)  # noqa: S101 - narrows the type
        return int(probe.ask("LLEN", "huey.redis.benchmark"))

    def results(self, probe: Probe) -> int | None:
        assert isinstance(probe, RedisProbe)  # noqa: S101 - narrows the type
        return int(probe.ask("HLEN", "huey.results.benchmark"))


ADAPTER = _Adapter(huey, __name__, _THREADS)
