"""One ``tasks.py`` that names no broker, run on NATS by the command line and by the environment."""

import ast
import os
import subprocess
import sys
from contextlib import contextmanager
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

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

EXAMPLES = Path(__file__).parents[3] / "examples"


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


@pytest.mark.parametrize("plugin", [("--plugin", "nats"), ()], ids=["by the option", "by the address"])
def test_the_same_tasks_run_on_nats_unchanged(tmp_path, server, plugin):
    (tmp_path / "tasks.py").write_text(TASKS)
    known = environment(CHICORY_BROKER_URL=server.url)

    with worker(tmp_path, known, *plugin):
        called = call(tmp_path, known)

    assert called.stdout == f"{server.url} {server.url} 3\n", called.stderr


def test_settings_of_the_section_and_the_plugin_by_name_are_enough(tmp_path, server):
    (tmp_path / "tasks.py").write_text(TASKS)
    known = environment(CHICORY_PLUGINS="nats", CHICORY_BROKER_NATS_PORT=str(server.port))

    with worker(tmp_path, known):
        called = call(tmp_path, known)

    assert called.stdout == f"{server.url} {server.url} 3\n", called.stderr


def test_the_demo_runs_over_the_server(tmp_path, server):
    for number in range(60):
        (tmp_path / f"module_{number}.py").write_text("import os\n")
    command = [sys.executable, "-m", "chicory", "demo", str(tmp_path), "--plugin", "nats", "--no-chaos"]

    done = subprocess.run(
        command,
        env=environment(CHICORY_BROKER_NATS_PORT=str(server.port)),
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "60 files, one task each, on 2 worker processes and nats" in done.stdout


def shown():
    """What tells whether an example printed what it promises: the tests of the examples know."""
    spec = spec_from_file_location("shown", EXAMPLES.parent / "tests" / "examples" / "shown.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.py")), ids=lambda file: file.stem)
def test_every_example_runs_over_the_server(tmp_path, server, file):
    docstring = ast.get_docstring(ast.parse(file.read_text()))

    done = subprocess.run(
        [sys.executable, str(file)],
        cwd=tmp_path,
        env=environment(CHICORY_PLUGINS="nats", CHICORY_BROKER_NATS_PORT=str(server.port), PYTHONUNBUFFERED="1"),
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )

    expected = shown().pattern_of(shown().section(docstring, "What appears"))
    assert expected.fullmatch(done.stdout.strip()), done.stdout + done.stderr
    assert done.returncode == 0
