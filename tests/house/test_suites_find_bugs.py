"""The suites are worth inheriting: each of many small bugs in the memory broker makes them fail, and without any they pass."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .memory_bugs import BUGS

ROOT = Path(__file__).parents[2]
SUITES = "tests/unit/test_memory.py"


def run_suites(bug, *options):
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("CHICORY_", "PYTEST_"))}
    variables = {"PYTHONPATH": str(Path(__file__).parent), "PYTHONDONTWRITEBYTECODE": "1"}
    if bug is not None:
        variables["CHICORY_TEST_BUG"] = bug
    command = [sys.executable, "-m", "pytest", SUITES, "-q", "-p", "memory_bugs", "-p", "no:cacheprovider", "--tb=line"]
    command += ["-k", "TestMemoryBroker or TestMemoryJoined"]
    command += ["-p", "no:hypothesispytest", "-p", "no:xdist"]  # they cost each run a second, and nothing here uses them
    return subprocess.run(
        [*command, *options], cwd=ROOT, env={**clean, **variables}, capture_output=True, text=True, check=False, timeout=150
    )


@pytest.mark.timeout(180)
def test_without_a_bug_they_pass():
    done = run_suites(None)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(180)  # a process each, on a machine that may be busy
@pytest.mark.parametrize("bug", BUGS)
def test_each_bug_is_caught(bug):
    done = run_suites(bug, "--exitfirst")

    summary = done.stdout.splitlines()[-1] if done.stdout else done.stderr
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, f"nothing noticed that {bug}: {done.stdout}{done.stderr}"
    assert "1 failed" in summary, done.stdout
    assert " error" not in summary, done.stdout


def test_a_bug_whose_place_has_gone_is_noticed(monkeypatch):
    from . import memory_bugs

    monkeypatch.setitem(BUGS, "stale", ("serializer", "a line that is not there", ""))
    monkeypatch.delitem(sys.modules, "chicory.serializer")

    with pytest.raises(AssertionError, match="write the bug 'stale' anew"):
        memory_bugs.break_memory("stale")
