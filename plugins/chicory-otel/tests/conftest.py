"""One SDK for this process, in memory: a provider can be set once. Each test begins with nothing in it."""

import pytest
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, Sampler, SamplingResult, StaticSampler


class Spans:
    """What was exported so far, by name."""

    def __init__(self, exporter):
        self.exporter = exporter

    def all(self):
        return list(self.exporter.get_finished_spans())

    def named(self, name):
        return [span for span in self.all() if span.name == name]

    def one(self, name):
        (span,) = self.named(name)
        return span


class Switch(Sampler):
    """Samples roots as it is told at the moment."""

    is_on = True

    def should_sample(self, *args, **kwargs) -> SamplingResult:
        from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON

        chosen: StaticSampler = ALWAYS_ON if self.is_on else ALWAYS_OFF
        return chosen.should_sample(*args, **kwargs)

    def get_description(self):
        return "switch"


_SWITCH = Switch()
_EXPORTER = InMemorySpanExporter()
_READER = InMemoryMetricReader()


@pytest.fixture(scope="session", autouse=True)
def sdk():
    provider = TracerProvider(sampler=ParentBased(_SWITCH), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(_EXPORTER))
    trace.set_tracer_provider(provider)
    metrics.set_meter_provider(MeterProvider(metric_readers=[_READER], shutdown_on_exit=False))
    return provider


@pytest.fixture(autouse=True)
def spans():
    _SWITCH.is_on = True
    _EXPORTER.clear()
    yield Spans(_EXPORTER)
    _SWITCH.is_on = True


@pytest.fixture
def sampling():
    """Set its ``is_on`` to False: roots are not sampled then."""
    return _SWITCH


class Metrics:
    """The points of all metrics, by name, each as (labels, value); counters count since the fixture was made."""

    def __init__(self):
        self._before = self._read()

    def _read(self):
        data = _READER.get_metrics_data()
        points = {}
        for resource in data.resource_metrics if data else []:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    for point in metric.data.data_points:
                        key = metric.name, tuple(sorted((point.attributes or {}).items()))
                        points[key] = point.count if hasattr(point, "bucket_counts") else point.value
        return points

    def __call__(self, name):
        """What was added to *name* since, by labels."""
        now = self._read()
        grown = {key: value - self._before.get(key, 0) for key, value in now.items() if key[0] == name}
        return {labels: value for (_, labels), value in grown.items() if value}

    def at(self, name):
        """What *name* says now, by labels."""
        return {labels: value for (known, labels), value in self._read().items() if known == name}

    def names(self):
        return {name for name, _ in self._read()}


@pytest.fixture
def measured():
    return Metrics()
