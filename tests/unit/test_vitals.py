"""The state file of a worker: where it is, what it says, and when it is not believed."""

import os
import socket
import stat
import subprocess
import sys
import time

import pytest

from chicory.vitals import (
    STALE_SECONDS,
    Vitals,
    default_folder,
    file_for,
    find_files,
    forget_gone,
    host_and_port,
    look_at,
    own_folder,
    write,
)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return default_folder()


def vitals(**facts):
    return Vitals(
        **{"worker_id": "w-1", "hostname": socket.gethostname(), "pid": os.getpid(), "live": True, "ready": True} | facts
    )


@pytest.fixture
def gone():
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


# --- addresses -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "parts"),
    [("127.0.0.1:80", ("127.0.0.1", 80)), ("[::1]:0", ("::1", 0)), ("localhost:65535", ("localhost", 65535))],
)
def test_an_address_is_host_and_port(address, parts):
    assert host_and_port(address) == parts


@pytest.mark.parametrize(
    "address", ["8081", ":8081", "localhost", "localhost:", "localhost:http", "localhost:65536", "h:-1", "h:²"]
)
def test_another_form_is_refused(address):
    with pytest.raises(ValueError, match="must be written host:port"):
        host_and_port(address)


# --- where the files are -------------------------------------------------------------------------


def test_the_folder_is_its_users_alone():
    assert stat.S_IMODE(own_folder().stat().st_mode) == 0o700


@pytest.mark.parametrize("make", [lambda f: f.mkdir(mode=0o755), lambda f: f.symlink_to("/"), lambda f: f.write_text("")])
def test_a_folder_of_somebody_else_is_refused(folder, make):
    make(folder)

    with pytest.raises(PermissionError, match="not a directory of this user alone"):
        own_folder()
    with pytest.raises(PermissionError, match="not a directory of this user alone"):
        find_files()


def test_two_workers_of_one_process_have_a_file_each():
    first = file_for("host-1-aaaaaa", None)
    write(first, vitals(worker_id="host-1-aaaaaa"))

    assert file_for("host-1-aaaaaa", None) == first
    assert file_for("host-1-bbbbbb", None) == first.with_name(f"{os.getpid()}-bbbbbb.json")


def test_a_chosen_name_gets_the_process_id(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert file_for("w", "state-{pid}.json") == tmp_path / f"state-{os.getpid()}.json"


def test_files_are_found_by_process_by_pattern_or_all(tmp_path):
    mine = file_for("w-1", None)
    write(mine, vitals())
    other = mine.with_name("1.json")
    write(other, vitals(pid=1))
    elsewhere = mine.with_name("7.json")
    write(elsewhere, vitals(pid=7, hostname="another-host"))
    chosen = tmp_path / "state-12.json"
    write(chosen, vitals(pid=12))

    assert find_files() == sorted([mine, other]), "those of this host"
    assert find_files(pid=1) == [other]
    assert find_files(chosen=str(tmp_path / "state-{pid}.json")) == [chosen]
    assert find_files(chosen=str(tmp_path / "state-{pid}.json"), pid=13) == []


def test_where_no_worker_has_been_no_file_is_found():
    assert find_files() == []


def test_files_of_processes_that_are_gone_are_forgotten(gone):
    folder = own_folder()
    write(folder / "dead.json", vitals(pid=gone))
    write(folder / "alive.json", vitals())
    write(folder / "far.json", vitals(pid=gone, hostname="another-host"))
    (folder / "odd.json").write_text("{")

    forget_gone(folder)

    assert sorted(file.name for file in folder.iterdir()) == ["alive.json", "far.json", "odd.json"]


def test_a_file_that_cannot_be_replaced_leaves_nothing_behind(folder):
    own_folder()
    (folder / "taken.json").mkdir()

    with pytest.raises(OSError, match="directory"):
        write(folder / "taken.json", vitals())

    assert [file.name for file in folder.iterdir()] == ["taken.json"]


# --- believing -----------------------------------------------------------------------------------


def test_a_healthy_worker_is_live_and_ready():
    file = own_folder() / "w.json"
    write(file, vitals())

    seen = look_at(file)

    assert (seen.live, seen.ready, seen.reasons, seen.worker_id) == (True, True, (), "w-1")


def test_reasons_are_those_of_the_worker():
    file = own_folder() / "w.json"
    write(file, vitals(ready=False, reasons=("draining",)))

    seen = look_at(file)

    assert (seen.live, seen.ready, seen.reasons) == (True, False, ("draining",))


def test_the_file_of_a_process_that_is_gone_is_not_believed(gone):
    file = own_folder() / "w.json"
    write(file, vitals(pid=gone))

    seen = look_at(file)

    assert (seen.live, seen.ready, seen.reasons) == (False, False, (f"process {gone} is gone",))


def test_an_old_file_is_not_believed():
    file = own_folder() / "w.json"
    write(file, vitals())
    old = time.time() - STALE_SECONDS - 5
    os.utime(file, (old, old))

    seen = look_at(file)

    assert (seen.live, seen.ready) == (False, False)
    assert seen.reasons[0].startswith("frozen: no sign of life for 1")


@pytest.mark.parametrize(
    ("content", "why"), [("{", "cannot be read"), ("{}", "cannot be read"), (None, "there is no state file")]
)
def test_no_file_and_a_broken_one_are_not_healthy(content, why):
    file = own_folder() / "w.json"
    if content is not None:
        file.write_text(content)

    seen = look_at(file)

    assert (seen.live, seen.ready, seen.pid) == (False, False, None)
    assert why in seen.reasons[0]
