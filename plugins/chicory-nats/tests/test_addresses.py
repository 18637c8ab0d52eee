"""From a URL or settings to servers."""

import pytest

from chicory import BackendType, BrokerType, Chicory, ChicoryConfig
from chicory.config import BackendConfig, BrokerConfig
from chicory.errors import BrokerConnectionError, ConfigurationError
from chicory_nats import NatsBackend, NatsBackendConfig, NatsBroker, NatsBrokerConfig
from chicory_nats.plugin import server_place
from chicory_nats.wire import Wire


@pytest.mark.parametrize(
    ("url", "servers", "address"),
    [
        ("nats://localhost", ("nats://localhost:4222",), "nats://localhost:4222"),
        (
            "nats://n1:4223,n2,nats://n3",
            ("nats://n1:4223", "nats://n2:4222", "nats://n3:4222"),
            "nats://n1:4223,n2:4222,n3:4222",
        ),
        ("tls://me:secret@n1", ("tls://n1:4222",), "tls://n1:4222"),
        ("nats://[::1]:4300", ("nats://[::1]:4300",), "nats://[::1]:4300"),
    ],
)
def test_addresses(url, servers, address):
    place = server_place(NatsBrokerConfig(), url)

    assert (place.servers, place.address) == (servers, address)


def test_a_url_brings_user_password_and_settings():
    place = server_place(NatsBrokerConfig(), "nats://me:p%40ss@host?namespace=shop&replicas=3&request_timeout=2")

    assert (place.options["user"], place.options["password"]) == ("me", "p@ss")
    assert (place.names.space, place.replicas, place.timeout) == ("shop", 3, 2.0)
    assert "p@ss" not in place.address


def test_a_name_without_password_is_a_token():
    assert server_place(NatsBrokerConfig(), "nats://s3cret@host").options["token"] == "s3cret"


def test_credentials_pass_through():
    place = server_place(NatsBrokerConfig(creds_file="me.creds", nkey_file="me.nk", inbox_prefix="_INBOX_shop"), "nats://host")

    assert (place.options["user_credentials"], place.options["nkeys_seed"]) == ("me.creds", "me.nk")
    assert place.options["inbox_prefix"] == "_INBOX_shop"


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("nats://host?colour=red", "sets colour"),
        ("http://host", "no address of NATS"),
        ("nats://n1,tls://n2", "several kinds"),
        ("nats://", "no address of NATS"),
    ],
)
def test_what_makes_no_sense_is_refused(url, problem):
    with pytest.raises(ConfigurationError, match=problem):
        server_place(NatsBrokerConfig(), url)


def test_names_and_sections_of_the_app():
    config = ChicoryConfig(
        broker=BrokerConfig(nats=NatsBrokerConfig(host="here", namespace="a")),
        backend=BackendConfig(nats=NatsBackendConfig(host="there", namespace="b")),
    )

    app = Chicory(broker=BrokerType.NATS, backend=BackendType.NATS, config=config)

    broker, backend = app.broker_twin(), app.backend_twin()
    assert isinstance(broker, NatsBroker)
    assert isinstance(backend, NatsBackend)
    assert (broker.address, backend.address) == ("nats://here:4222", "nats://there:4222")
    assert (broker.place.names.space, backend.place.names.space) == ("a", "b")


def test_a_backend_that_nothing_is_said_of_is_where_the_broker_is():
    app = Chicory(broker="nats://host:4300?namespace=shop")

    assert app.backend_twin().place == app.broker_twin().place


async def test_a_server_that_is_not_there_is_said_so_at_once(nats_server):
    broker = NatsBroker(nats_server.place(servers=("nats://127.0.0.1:9",), address="nats://127.0.0.1:9"))

    with pytest.raises(BrokerConnectionError, match="nats://127.0.0.1:9"):
        async with broker:
            pass


async def test_a_wrong_password_is_said_so(make_server):
    server = make_server("authorization { user: me, password: right }")
    broker = NatsBroker(server.place(options={"user": "me", "password": "wrong"}))

    with pytest.raises(BrokerConnectionError, match="(?i)authorization"):
        async with broker:
            pass


async def test_a_server_that_refuses_and_resets_the_connection_is_said_to_refuse(make_server, monkeypatch):
    server = make_server("authorization { user: me, password: right }")
    close = Wire._close

    async def close_after_a_reset(self, *words):
        await close(self, *words)
        await self._error_cb(ConnectionResetError("reset by peer"))  # as nats-py does when waiting for the end fails

    monkeypatch.setattr(Wire, "_close", close_after_a_reset)
    broker = NatsBroker(server.place(options={"user": "me", "password": "wrong"}))

    with pytest.raises(BrokerConnectionError, match="(?i)authorization"):
        async with broker:
            pass
