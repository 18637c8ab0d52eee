"""The suites are worth inheriting: each of many small bugs in the memory broker makes them fail, and without any they pass."""

import json
import os
import subprocess
import sys

import pytest

from . import memory_bugs
from .memory_bugs import BUGS, NO_BUG

NAMES = [NO_BUG, *BUGS]
PARTS = [NAMES[0::3], NAMES[1::3], NAMES[2::3]]


def run_suites(names):
    """How pytest ended with each of these bugs, and which test failed: in a process of their own."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("CHICORY_", "PYTEST_", "PYTHONDONT"))}
    command = [sys.executable, memory_bugs.__file__, *names]
    done = subprocess.run(command, env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {told["bug"]: told for told in map(json.loads, done.stdout.splitlines())}, done.stderr


@pytest.mark.timeout(400)  # two dozen runs of the suites, on a machine that may be busy
@pytest.mark.parametrize("names", PARTS, ids=["first", "second", "third"])
def test_each_bug_is_caught_and_without_one_they_pass(names):
    told, errors = run_suites(names)

    assert list(told) == names
    for name, run in told.items():
        if name == NO_BUG:
            assert (run["code"], run["failed"]) == (pytest.ExitCode.OK, []), errors
        else:
            assert run["code"] == pytest.ExitCode.TESTS_FAILED, f"nothing notices that {name}: {run} {errors}"
            assert len(run["failed"]) == 1, f"{name}: {run} {errors}"


def test_there_are_many_bugs():
    assert len(BUGS) >= 20


def test_a_bug_whose_place_has_gone_is_noticed(monkeypatch):
    monkeypatch.setitem(BUGS, "stale", ("serializer", "a line that is not there", ""))
    monkeypatch.delitem(sys.modules, "chicory.serializer")

    with pytest.raises(AssertionError, match="write the bug 'stale' anew"):
        memory_bugs.break_memory("stale")
