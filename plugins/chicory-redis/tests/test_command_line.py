"""One ``tasks.py`` that names no broker, run on Redis by the command line and by the environment."""

import os
import subprocess
import sys
from contextlib import contextmanager

import pytest

TASKS = """
from chicory import Chicory

app = Chicory()

@app.task
def add(a: int, b: int) -> int:
    return a + b

if __name__ == "__main__":
    print(app.broker.address, app.backend.address, add.delay_sync(1, 2).get_sync(timeout=20))
"""

IN_TWO_DATABASES = TASKS.replace(
    "app = Chicory()",
    """
from chicory import BackendType, BrokerType, ChicoryConfig
from chicory.config import BackendConfig, BrokerConfig, RedisBackendConfig, RedisBrokerConfig

config = ChicoryConfig(
    broker=BrokerConfig(redis=RedisBrokerConfig(port={port}, db=0)),
    backend=BackendConfig(redis=RedisBackendConfig(port={port}, db=1)),
)
app = Chicory(broker=BrokerType.REDIS, backend=BackendType.REDIS, config=config)
""",
)


@pytest.fixture
def server(make_server):
    return make_server()


@contextmanager
def worker(folder, environment, *arguments):
    with (folder / "worker.log").open("wb") as log:
        command = [sys.executable, "-m", "chicory", "worker", "tasks:app", *arguments]
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
    try:
        yield process
        process.terminate()
        assert process.wait(20) == 0, (folder / "worker.log").read_text()
    finally:
        process.kill()
        process.wait()


def call(folder, environment):
    return subprocess.run(
        [sys.executable, "tasks.py"], cwd=folder, env=environment, capture_output=True, text=True, timeout=30, check=False
    )


def environment(**more):
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CHICORY_")}
    return {**clean, **more}


@pytest.mark.parametrize("plugin", [("--plugin", "redis"), ()], ids=["by the option", "by the address"])
def test_the_same_tasks_run_on_redis_unchanged(tmp_path, server, plugin):
    (tmp_path / "tasks.py").write_text(TASKS)
    known = environment(CHICORY_BROKER_URL=f"{server.url}/0")

    with worker(tmp_path, known, *plugin):
        called = call(tmp_path, known)

    assert called.stdout == f"{server.url}/0 {server.url}/0 3\n", called.stderr


def test_settings_of_the_section_and_the_plugin_by_name_are_enough(tmp_path, server):
    (tmp_path / "tasks.py").write_text(TASKS)
    known = environment(CHICORY_PLUGINS="redis", CHICORY_BROKER_REDIS_PORT=str(server.port), CHICORY_BROKER_REDIS_DB="2")

    with worker(tmp_path, known):
        called = call(tmp_path, known)

    assert called.stdout == f"{server.url}/2 {server.url}/2 3\n", called.stderr


def test_broker_and_backend_in_two_databases_of_one_server(tmp_path, server):
    (tmp_path / "tasks.py").write_text(IN_TWO_DATABASES.replace("{port}", str(server.port)))

    with worker(tmp_path, environment()):
        called = call(tmp_path, environment())

    assert called.stdout == f"{server.url}/0 {server.url}/1 3\n", called.stderr
    assert not (tmp_path / ".chicory").exists(), "the embedded default is not touched"
