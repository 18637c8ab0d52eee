"""``chicory health``: what it prints and with which code it ends."""

import json
import os
import socket

import pytest
from click.testing import CliRunner

from chicory.cli.root import cli
from chicory.vitals import Vitals, own_folder, write


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return own_folder()


@pytest.fixture
def health():
    return lambda *arguments, **env: CliRunner().invoke(cli, ["health", *arguments], env=env)


def put(file, **facts):
    known = {"worker_id": "w-1", "hostname": socket.gethostname(), "pid": os.getpid(), "live": True, "ready": True}
    write(file, Vitals(**known | facts))


def test_no_worker_is_wrong_use(health, folder):
    done = health()

    assert done.exit_code == 2
    assert f"no worker found ({folder}): start one with `chicory worker`, or give its --file" in done.output


def test_a_live_worker_is_well(health, folder):
    put(folder / "1.json")

    done = health()

    assert (done.exit_code, done.output) == (0, f"{os.getpid()} w-1: live\n")


def test_one_that_is_not_ready_is_well_but_not_ready(health, folder):
    put(folder / "1.json", ready=False, reasons=("draining",))

    assert health().exit_code == 0
    done = health("--ready")
    assert (done.exit_code, done.output) == (1, f"{os.getpid()} w-1: not ready (draining)\n")


def test_one_bad_worker_among_good_ones_is_told(health, folder):
    put(folder / "1.json")
    put(folder / "2.json", live=False, ready=False, reasons=("the task loop has not turned for 301 s",))

    done = health()

    assert done.exit_code == 1
    assert "not live (the task loop has not turned for 301 s)" in done.output


def test_a_file_may_be_named_by_option_and_by_variable(health, tmp_path):
    put(tmp_path / "state.json")

    assert health("--file", str(tmp_path / "state.json")).exit_code == 0
    assert health(CHICORY_WORKER_HEALTH_FILE=str(tmp_path / "state.json")).exit_code == 0
    assert health("--file", str(tmp_path / "other.json")).exit_code == 2


def test_one_process_may_be_asked_for(health, folder):
    put(folder / f"{os.getpid()}.json")

    assert health("--pid", str(os.getpid())).exit_code == 0
    done = health("--pid", "1")
    assert (done.exit_code, "no worker with pid 1 found" in done.output) == (2, True)


def test_a_folder_of_somebody_else_is_not_looked_into(health, folder):
    folder.chmod(0o755)

    done = health()

    assert (done.exit_code, "not a directory of this user alone" in done.output) == (2, True)


def test_it_speaks_to_programs(health, folder):
    put(folder / "1.json", ready=False, reasons=("starting",))

    (seen,) = json.loads(health("--json").output)

    assert (seen["live"], seen["ready"], seen["reasons"], seen["worker_id"]) == (True, False, ["starting"], "w-1")
