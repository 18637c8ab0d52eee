"""chicory on NATS JetStream, as ``pip install chicory-nats chicory-core[fast]`` gives it, results on the same server."""

from __future__ import annotations

from benchmarks.adapter import About
from benchmarks.contenders.of_chicory import ChicoryAdapter
from benchmarks.probes import NatsProbe, Probe
from benchmarks.tasks import SERVER
from chicory import Chicory

ABOUT = About(title="chicory", broker="nats", guarantee="at least once, acks confirmed", role="ours", scale=1)
app = Chicory(broker=SERVER or "nats://127.0.0.1")


class _Adapter(ChicoryAdapter):
    about = ABOUT

    def unsettled(self, probe: Probe) -> int:
        """A settled message leaves its work-queue stream; buckets are streams named ``KV_…``."""
        assert isinstance(probe, NatsProbe)  # noqa: S101 - narrows the type
        return sum(stream["state"]["messages"] for stream in probe.streams() if not stream["name"].startswith(("KV_", "OBJ_")))

    def results(self, probe: Probe) -> int | None:
        """Results are stored before the message is settled."""
        return None


ADAPTER = _Adapter(app, __name__)
