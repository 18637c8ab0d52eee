"""taskiq with ``PullBasedJetStreamBroker`` of taskiq-nats; acknowledgements are sent without waiting for the server.

Results are in its object store, three messages each; the run without results has no result backend. A fetch of a hundred
without time-out would wait for a hundred messages, so it ends after 0.1 s. The tight round trip fetches one message at a
time and looks for the result each millisecond. Acknowledged messages stay in the stream: it has no retention by default.
"""

from __future__ import annotations

from taskiq_nats import NATSObjectStoreResultBackend, PullBasedJetStreamBroker

from benchmarks.adapter import About, Setup
from benchmarks.contenders.of_taskiq import TaskiqAdapter
from benchmarks.probes import NatsProbe, Probe
from benchmarks.tasks import SERVER

ABOUT = About(title="taskiq", broker="nats", guarantee="at least once (acks not confirmed)")
_URL = SERVER or "nats://127.0.0.1"
_IS_TRIP = Setup.from_environment().concurrency == -1

broker = PullBasedJetStreamBroker(_URL, pull_consume_batch=1 if _IS_TRIP else 100, pull_consume_timeout=0.1)
if Setup.from_environment().results:
    broker = broker.with_result_backend(NATSObjectStoreResultBackend(_URL))


class _Adapter(TaskiqAdapter):
    about = ABOUT

    def unsettled(self, probe: Probe) -> int:
        assert isinstance(probe, NatsProbe)  # noqa: S101 - narrows the type
        streams = [stream for stream in probe.streams() if not stream["name"].startswith("OBJ_")]
        consumers = [consumer for stream in streams for consumer in stream.get("consumer_detail") or []]
        return sum(consumer["num_pending"] + consumer["num_ack_pending"] for consumer in consumers)

    def results(self, probe: Probe) -> int | None:
        """Saved before the acknowledgement."""
        return None


ADAPTER = _Adapter(broker, __name__)
