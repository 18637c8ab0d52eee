"""Which SDK a worker sets up, by the variables of the environment."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import chicory_otel
from chicory.errors import ConfigurationError
from chicory_otel import sdk
from chicory_otel.sdk import exporters_wanted, is_wanted

pytestmark = pytest.mark.timeout(180)  # some start interpreters, on machines that may be busy


@pytest.mark.parametrize(
    ("environment", "names"),
    [
        ({}, []),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c"}, []),
        ({"OTEL_TRACES_EXPORTER": "console"}, ["console"]),
        ({"OTEL_TRACES_EXPORTER": "otlp, console"}, ["otlp_proto_http", "console"]),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, ["otlp_proto_grpc"]),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c"}, ["otlp_proto_http"]),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c"}, ["otlp_proto_http"]),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://c"}, []),
        ({"OTEL_TRACES_EXPORTER": "console", "OTEL_SDK_DISABLED": "true"}, []),
    ],
)
def test_exporters_are_those_that_the_variables_name(environment, names):
    assert exporters_wanted("traces", environment) == names


def test_an_unknown_protocol_is_refused():
    with pytest.raises(ConfigurationError, match="OTEL_EXPORTER_OTLP_PROTOCOL is 'http/json'"):
        exporters_wanted("traces", {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"})


@pytest.mark.parametrize(
    ("setup", "environment", "wanted"),
    [
        (None, {}, False),
        (None, {"OTEL_METRICS_EXPORTER": "console"}, True),
        (True, {}, True),
        (False, {"OTEL_TRACES_EXPORTER": "console"}, False),
    ],
)
def test_it_is_wanted_where_an_exporter_is_named_or_the_setting_says_so(setup, environment, wanted):
    assert is_wanted(environment, setup=setup) is wanted


def test_nothing_is_replaced_where_the_code_has_set_one_up(monkeypatch):
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "no-such-exporter")

    assert sdk.set_up("w", is_asked=False) is False


def test_without_an_sdk_it_is_said_what_to_install(monkeypatch, caplog):
    monkeypatch.setattr(sdk, "find_spec", lambda name: None)

    with pytest.raises(ConfigurationError, match=r'pip install "chicory-otel\[otlp\]"'):
        sdk.set_up("w", is_asked=True)
    assert sdk.set_up("w", is_asked=False) is False
    assert "otel_sdk_missing" in caplog.text


def test_an_exporter_that_is_not_installed_is_named():
    with pytest.raises(ConfigurationError, match="OTEL_TRACES_EXPORTER wants 'zipkin'.*there are .*console"):
        sdk._load("traces", "zipkin")


def in_a_process(code, **environment):
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "CHICORY_"))}
    return subprocess.run(
        [sys.executable, "-c", code], env={**clean, **environment}, capture_output=True, text=True, timeout=150, check=False
    )


SET_UP = """
from opentelemetry import metrics, trace
from chicory_otel.failing import is_measured, is_traced
from chicory_otel.sdk import set_up
assert not is_traced() and not is_measured()
assert set_up("w1", is_asked=False)
resource = trace.get_tracer_provider().resource.attributes
print((is_traced(), is_measured()), resource["service.name"], resource["service.instance.id"], trace.get_tracer_provider().sampler.get_description())
"""


def test_what_the_variables_say_is_what_is_set_up():
    done = in_a_process(
        SET_UP,
        OTEL_TRACES_EXPORTER="console",
        OTEL_METRICS_EXPORTER="console",
        OTEL_SERVICE_NAME="shop",
        OTEL_TRACES_SAMPLER="parentbased_traceidratio",
        OTEL_TRACES_SAMPLER_ARG="0.5",
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("(True, True) shop w1 ParentBased{root:TraceIdRatioBased{0.5}")


def test_only_the_api_is_imported_where_nothing_is_set_up():
    """The SDK and the exporters are extras: a producer needs none of them."""
    code = "import sys, chicory_otel.plugin; print([m for m in sys.modules if m.startswith(('opentelemetry.sdk', 'opentelemetry.exporter'))])"

    assert in_a_process(code).stdout.strip() == "[]"


def test_no_module_of_the_plugin_but_one_knows_the_sdk():
    folder = Path(chicory_otel.__file__).parent
    known = {file.name for file in folder.glob("*.py") if "opentelemetry.sdk" in file.read_text()}

    assert known == {"sdk.py"}
