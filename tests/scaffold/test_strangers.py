"""What ``chicory plugin new`` writes, as a stranger has it: installed into a fresh environment, where its tests pass.

Runs in the tox env ``scaffold``, for it builds environments; whoever runs everything by hand sets CHICORY_TEST_SCAFFOLD.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.scaffold,
    pytest.mark.timeout(600),
    pytest.mark.skipif("CHICORY_TEST_SCAFFOLD" not in os.environ, reason="builds environments: run `tox -e scaffold`"),
]


def run(*words, cwd, **variables):
    """What the command printed; it must end well."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("CHICORY_", "PYTEST_", "COV_"))}
    command = [str(word) for word in words]
    done = subprocess.run(command, cwd=cwd, env={**clean, **variables}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture
def installed(tmp_path):
    """Writes and installs a plugin of that kind; gives its folder, and the programs of its environment."""

    def install(kind):
        run(Path(sys.executable).with_name("chicory"), "plugin", "new", "acme", "--kind", kind, cwd=tmp_path)
        folder, environment = tmp_path / "chicory-acme", tmp_path / "environment"
        uv = [sys.executable, "-m", "uv", "--quiet"]
        run(*uv, "venv", "--python", sys.executable, environment, cwd=tmp_path)
        python = environment / "bin" / "python"
        run(*uv, "pip", "install", "--python", python, ROOT, f"{folder}[testing]", "ruff", "mypy", cwd=tmp_path)
        return folder, environment / "bin"

    return install


@pytest.mark.parametrize(("kind", "least"), [("broker", 50), ("middleware", 12)], ids=["broker", "middleware"])
def test_a_written_plugin_passes_its_own_tests_in_a_fresh_environment(installed, kind, least):
    folder, programs = installed(kind)

    printed = run(programs / "python", "-m", "pytest", "-q", "--junit-xml", "report.xml", cwd=folder)

    assert int(printed.rsplit(" passed", 1)[0].split()[-1]) >= least, printed
    rows = {row["name"]: row for row in json.loads(run(programs / "chicory", "plugins", "--json", cwd=folder))}
    assert (rows["acme"]["distribution"], rows["acme"]["state"]) == ("chicory-acme", "active")
    run(programs / "ruff", "check", ".", cwd=folder)
    run(programs / "ruff", "format", "--check", ".", cwd=folder)
    run(programs / "mypy", "--strict", "src", cwd=folder)
