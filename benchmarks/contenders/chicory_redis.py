"""chicory on Redis, as ``pip install chicory-redis[fast] chicory-core[fast]`` gives it, results on the same server."""

from __future__ import annotations

from benchmarks.adapter import About
from benchmarks.contenders.of_chicory import ChicoryAdapter
from benchmarks.probes import Probe, RedisProbe
from benchmarks.tasks import SERVER
from chicory import Chicory

ABOUT = About(
    title="chicory", broker="redis", guarantee="at least once, fenced, results with the message", role="ours", scale=1
)
app = Chicory(broker=SERVER or "redis://127.0.0.1")
_LEVELS = 10


class _Adapter(ChicoryAdapter):
    about = ABOUT

    def unsettled(self, probe: Probe) -> int:
        """A settled message leaves its stream in the step that settles it."""
        assert isinstance(probe, RedisProbe)  # noqa: S101 - narrows the type
        return sum(probe.ask_all([("XLEN", f"chicory:{{default}}:s:{level}") for level in range(_LEVELS)]))

    def results(self, probe: Probe) -> int | None:
        return None


ADAPTER = _Adapter(app, __name__)
