"""The files of ``examples/deploy``: valid for the tools that read them, and in tune with chicory's own times and names."""

import copy
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from chicory.config import known_variables
from chicory.supervisor import STOP_MARGIN
from chicory.testing import eventually
from chicory_sqlite import SqliteBackendConfig, SqliteBrokerConfig

DEPLOY = Path(__file__).parents[2] / "examples" / "deploy"
KUBERNETES = "1.31"
KINDS = {"ConfigMap", "PersistentVolumeClaim", "Deployment"}


def compose_problem(file: Path) -> str | None:
    """What the compose specification's own schema, as `check-jsonschema` vendors it, has against *file*."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=50)
    return None if done.returncode == 0 else done.stdout + done.stderr


def the_compose_file() -> dict:
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())


def the_manifest() -> dict[str, dict]:
    documents = yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())
    return {document["kind"]: document for document in documents if document}


def settings_of(file: str) -> dict[str, str]:
    """The environment of a worker."""
    if file == "compose.yaml":
        return the_compose_file()["services"]["worker"]["environment"]
    return the_manifest()["ConfigMap"]["data"]


def seconds(text: str) -> float:
    number, unit = re.fullmatch(r"(\d+)(s|m)", text).groups()
    return float(number) * {"s": 1, "m": 60}[unit]


# --- valid for their tools -------------------------------------------------------------------------


def test_the_compose_file_fits_the_specification():
    assert compose_problem(DEPLOY / "compose.yaml") is None


@pytest.mark.parametrize(
    ("there", "instead"),
    [("stop_grace_period: 45s", "stop_grace_seconds: 45"), ("replicas: 4", "replicas: [4]"), ("services:", "service:")],
    ids=["unknown key", "wrong type", "unknown section"],
)
def test_a_broken_compose_file_is_refused(tmp_path, there, instead):
    text = (DEPLOY / "compose.yaml").read_text()
    assert there in text
    broken = tmp_path / "compose.yaml"
    broken.write_text(text.replace(there, instead))

    assert compose_problem(broken)


def test_the_manifest_fits_the_schemas_of_kubernetes():
    documents = the_manifest()

    assert documents.keys() == KINDS
    for document in documents.values():
        kubernetes_validate.validate(document, KUBERNETES, strict=True)


def _misspell(pod: dict) -> None:
    pod["terminationGraceSeconds"] = pod.pop("terminationGracePeriodSeconds")


def _wrong_type(pod: dict) -> None:
    pod["terminationGracePeriodSeconds"] = "45s"


def _without_name(pod: dict) -> None:
    del pod["containers"][0]["name"]


@pytest.mark.parametrize("damage", [_misspell, _wrong_type, _without_name], ids=["unknown key", "wrong type", "missing key"])
def test_a_broken_manifest_is_refused(damage):
    deployment = copy.deepcopy(the_manifest()["Deployment"])
    damage(deployment["spec"]["template"]["spec"])

    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, KUBERNETES, strict=True)


def test_the_image_starts_without_a_shell_in_between():
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    started = {
        word: json.loads(rest) for word, _, rest in (line.partition(" ") for line in lines) if word in ("ENTRYPOINT", "CMD")
    }

    assert started == {"ENTRYPOINT": ["chicory"], "CMD": ["worker"]}


# --- in tune with chicory --------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["compose.yaml", "kubernetes.yaml"])
def test_the_grace_period_leaves_a_worker_the_time_it_may_take(file):
    shutdown_timeout = float(settings_of(file)["CHICORY_WORKER_SHUTDOWN_TIMEOUT"])
    if file == "compose.yaml":
        grace = seconds(the_compose_file()["services"]["worker"]["stop_grace_period"])
    else:
        grace = the_manifest()["Deployment"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]

    assert grace >= shutdown_timeout + STOP_MARGIN
    assert f"+ {STOP_MARGIN:.0f} s" in (DEPLOY / file).read_text(), "the comment says why"


@pytest.mark.parametrize("file", ["compose.yaml", "kubernetes.yaml"])
def test_every_variable_is_a_setting(file):
    known = known_variables([SqliteBrokerConfig, SqliteBackendConfig])

    assert set(settings_of(file)) - known == set()


def test_all_that_share_the_file_are_on_one_host_and_one_user():
    compose, manifest = the_compose_file(), the_manifest()
    template = manifest["Deployment"]["spec"]["template"]
    (term,) = template["spec"]["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]

    assert {tuple(service["volumes"]) for service in compose["services"].values()} == {("data:/data",)}
    assert manifest["PersistentVolumeClaim"]["spec"]["accessModes"] == ["ReadWriteOnce"]
    assert term["topologyKey"] == "kubernetes.io/hostname"
    assert term["labelSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    assert f"--uid {template['spec']['securityContext']['runAsUser']} " in (DEPLOY / "Dockerfile").read_text()


def test_probes_ask_the_port_at_which_workers_answer():
    container = the_manifest()["Deployment"]["spec"]["template"]["spec"]["containers"][0]
    (port,) = container["ports"]

    assert settings_of("kubernetes.yaml")["CHICORY_WORKER_HEALTH_ADDRESS"] == f"0.0.0.0:{port['containerPort']}"
    for probe, path in (("livenessProbe", "/live"), ("readinessProbe", "/ready")):
        assert container[probe]["httpGet"] == {"path": path, "port": port["name"]}


@pytest.mark.parametrize("file", ["compose.yaml", "kubernetes.yaml"])
async def test_a_worker_with_these_settings_starts_and_drains(file, tmp_path):
    here = {"CHICORY_BROKER_URL": f"sqlite:///{tmp_path}/chicory.db", "CHICORY_WORKER_HEALTH_ADDRESS": "127.0.0.1:0"}
    settings = settings_of(file) | here
    (tmp_path / "tasks.py").write_text("from chicory import Chicory\n\napp = Chicory()\n")
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CHICORY_")}
    log = tmp_path / "log"
    with log.open("wb") as errors:
        command = [shutil.which("chicory", path=Path(sys.executable).parent) or "chicory", "worker"]
        process = subprocess.Popen(command, cwd=tmp_path, env={**clean, **settings}, stderr=errors)
    try:
        await eventually(lambda: "worker_started" in log.read_text() or process.poll() is not None, within=20)

        process.send_signal(signal.SIGTERM)

        assert await eventually(lambda: process.poll() is not None, within=20)
        assert process.returncode == 0, log.read_text()
        assert "worker_stopped" in log.read_text()
    finally:
        process.kill()
        process.wait()
