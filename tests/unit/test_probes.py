"""Probes over HTTP and in a file, as whoever asks sees them."""

import http.client
import json
import os
import socket

import pytest

from chicory.errors import ConfigurationError
from chicory.probes import ProbeServer, StateFile
from chicory.testing import eventually
from chicory.vitals import Vitals, look_at


@pytest.fixture
def state():
    return {"live": True, "ready": True, "reasons": ()}


@pytest.fixture
def vitals(state):
    return lambda: Vitals(worker_id="w-1", hostname=socket.gethostname(), pid=os.getpid(), **state)


@pytest.fixture
def ask(vitals):
    server = ProbeServer("127.0.0.1:0", vitals)
    server.start()

    def get(path, method="GET"):
        connection = http.client.HTTPConnection(server.address, timeout=10)
        connection.request(method, path)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer.status, json.loads(body) if body else None

    yield get
    server.stop()


def test_a_healthy_worker_answers_200_to_both(ask):
    assert [ask(path)[0] for path in ("/live", "/ready", "/live?why=1")] == [200] * 3
    assert ask("/live")[1]["worker_id"] == "w-1"


def test_one_that_is_not_ready_lives(ask, state):
    state.update(ready=False, reasons=("draining",))

    assert ask("/live")[0] == 200
    status, body = ask("/ready")
    assert (status, body["reasons"]) == (503, ["draining"])


def test_a_head_request_gets_the_status_alone(ask):
    assert ask("/ready", "HEAD") == (200, None)


def test_another_path_is_told_the_right_ones(ask):
    status, body = ask("/health")

    assert (status, body) == (404, {"error": "ask for /live or /ready"})


def test_a_client_that_says_nothing_does_not_keep_others_waiting(vitals):
    server = ProbeServer("127.0.0.1:0", vitals)
    server.start()
    host, _, port = server.address.rpartition(":")
    silent = [socket.create_connection((host, int(port))) for _ in range(20)]

    connection = http.client.HTTPConnection(server.address, timeout=10)
    connection.request("GET", "/live")

    assert connection.getresponse().status == 200
    connection.close()
    for each in silent:
        each.close()
    server.stop()


def test_an_address_that_is_taken_is_an_error_with_a_way_out(vitals):
    taken = socket.create_server(("127.0.0.1", 0))
    address = f"127.0.0.1:{taken.getsockname()[1]}"

    with pytest.raises(ConfigurationError, match=f"health_address '{address}' cannot be listened on .*give another port"):
        ProbeServer(address, vitals)

    taken.close()


def test_ipv6_is_written_in_brackets(vitals):
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    try:
        server = ProbeServer("[::1]:0", vitals)
    except ConfigurationError:
        pytest.skip("no IPv6 on the loopback interface")
    server.start()

    assert server.address.startswith("[::1]:")
    server.stop()


async def test_the_file_says_what_is_so_and_goes_with_the_worker(tmp_path, vitals, state):
    chosen = tmp_path / "state.json"
    file = StateFile("w-1", str(chosen), vitals)
    file.start()
    await eventually(chosen.exists)
    assert look_at(chosen).ready

    state.update(ready=False)
    file.renew()
    await eventually(lambda: not look_at(chosen).ready, within=1.5)  # sooner than it would by itself

    file.stop()
    assert not chosen.exists()


async def test_where_nothing_can_be_written_there_is_one_warning(tmp_path, vitals, caplog):
    file = StateFile("w-1", str(tmp_path / "missing" / "state.json"), vitals)
    file.start()
    await eventually(lambda: "health_file_not_written" in caplog.text)
    file.renew()
    (tmp_path / "missing").mkdir()
    file.renew()

    await eventually((tmp_path / "missing" / "state.json").exists)

    file.stop()
    assert caplog.text.count("health_file_not_written") == 1
