"""``CHICORY_FAULT``: where a process can be told to die."""

import os
import subprocess
import sys

import pytest

from chicory.errors import ConfigurationError
from chicory.faultpoints import FAULT_EXIT, FaultPoint, reacher


@pytest.mark.parametrize("setting", [None, ""])
def test_nobody_dies_unasked(setting):
    reach = reacher(setting)

    for point in FaultPoint:
        reach(point)


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ("before_runn:1", "there is no fault point 'before_runn': did you mean 'before_run'"),
        ("xyz:1", "there is no fault point 'xyz': there are before_publish, after_publish"),
        ("before_run", "'' is no number from 1 on: write before_run:1"),
        ("before_run:0", "'0' is no number from 1 on"),
        ("before_run:-1", "'-1' is no number from 1 on"),
        ("before_run:²", "'²' is no number from 1 on"),
    ],
)
def test_a_setting_that_names_no_point_is_refused(setting, text):
    with pytest.raises(ConfigurationError, match=text):
        reacher(setting)


def test_a_process_dies_at_its_point_the_time_it_was_told():
    code = "from chicory.faultpoints import FaultPoint, reach\nfor n in range(5):\n print(n, flush=True)\n [reach(p) for p in FaultPoint]"
    environment = {**os.environ, "CHICORY_FAULT": "after_run:3"}

    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout.split()) == (FAULT_EXIT, ["0", "1", "2"])
