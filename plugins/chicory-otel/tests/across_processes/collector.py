"""A stand-in for an OpenTelemetry collector: OTLP over HTTP on the loopback, parsed by the protocol's own messages."""

import gzip
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

_KINDS = {"/v1/traces": ExportTraceServiceRequest, "/v1/metrics": ExportMetricsServiceRequest}


class Collector:
    """Keeps what it is sent; ``url`` is what ``OTEL_EXPORTER_OTLP_ENDPOINT`` is to be. With a *status* it refuses all."""

    def __init__(self, status=200):
        self.requests = []
        self.refused = 0
        self.status = status
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                if collector.status == 200:
                    collector.requests.append((self.path, body, _KINDS[self.path].FromString(body)))
                else:
                    collector.refused += 1
                self.send_response(collector.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def bodies(self):
        """Every byte that arrived."""
        return b"".join(body for _, body, _ in list(self.requests))

    @property
    def spans(self):
        """(attributes of the resource, span) of each span."""
        return [
            (_plain(resource.resource.attributes), span)
            for path, _, request in list(self.requests)
            if path == "/v1/traces"
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def named(self, name):
        return [span for _, span in self.spans if span.name == name]

    def instances(self, name):
        """The processes that have sent spans of that name."""
        return {resource["service.instance.id"] for resource, span in self.spans if span.name == name}

    @property
    def metrics(self):
        """The names of all metrics."""
        return {
            metric.name
            for path, _, request in list(self.requests)
            if path == "/v1/metrics"
            for resource in request.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


def attributes_of(span):
    return _plain(span.attributes)


def _plain(attributes):
    found = {}
    for pair in attributes:
        kind = pair.value.WhichOneof("value")
        found[pair.key] = getattr(pair.value, kind)
    return found
