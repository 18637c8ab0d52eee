"""From a URL or settings to a server."""

import pytest

from chicory import BackendType, BrokerType, Chicory, ChicoryConfig
from chicory.config import BackendConfig, BrokerConfig
from chicory.errors import BrokerConnectionError, ConfigurationError
from chicory_redis import RedisBackend, RedisBackendConfig, RedisBroker, RedisBrokerConfig
from chicory_redis.plugin import server_place


@pytest.mark.parametrize(
    ("url", "kind", "host", "db", "address"),
    [
        ("redis://", "tcp", "127.0.0.1:6379", 0, "redis://127.0.0.1:6379/0"),
        ("redis://db.example:7000/3", "tcp", "db.example:7000", 3, "redis://db.example:7000/3"),
        ("rediss://me:secret@db.example", "tls", "db.example:6379", 0, "rediss://db.example:6379/0"),
        ("unix:///run/redis.sock?db=2", "unix", "/run/redis.sock", 2, "unix:///run/redis.sock?db=2"),
    ],
)
def test_addresses(url, kind, host, db, address):
    place = server_place(RedisBrokerConfig(), url)

    assert (place.kind, place.host, place.db, place.address) == (kind, host, db, address)


def test_a_url_brings_user_password_and_settings():
    place = server_place(RedisBrokerConfig(), "redis://me:p%40ss@host/1?key_prefix=shop&consumer_group=mail&socket_timeout=2")

    assert (place.options["username"], place.options["password"]) == ("me", "p@ss")
    assert (place.prefix, place.group, place.timeout) == ("shop", "mail", 2.0)
    assert "p@ss" not in place.address


def test_settings_of_the_section_hold_where_the_url_says_nothing():
    place = server_place(RedisBrokerConfig(key_prefix="shop", password="hidden"), "redis://host")

    assert (place.prefix, place.options["password"]) == ("shop", "hidden")


@pytest.mark.parametrize(
    ("url", "problem"),
    [("redis://host?colour=red", "sets colour"), ("http://host", "no address of Redis")],
)
def test_what_makes_no_sense_is_refused(url, problem):
    with pytest.raises(ConfigurationError, match=problem):
        server_place(RedisBrokerConfig(), url)


def test_tls_files_are_passed_through():
    section = RedisBrokerConfig(tls=True, tls_ca_file="ca.pem", tls_cert_file="me.pem", tls_key_file="me.key")

    place = server_place(section, None)

    assert place.kind == "tls"
    assert {place.options[f"ssl_{name}"] for name in ("ca_certs", "certfile", "keyfile")} == {"ca.pem", "me.pem", "me.key"}


def test_names_and_sections_of_the_app():
    config = ChicoryConfig(
        broker=BrokerConfig(redis=RedisBrokerConfig(host="a.example")),
        backend=BackendConfig(redis=RedisBackendConfig(host="a.example", db=1)),
    )

    app = Chicory(broker=BrokerType.REDIS, backend=BackendType.REDIS, config=config)

    assert (app.broker.address, app.backend.address) == ("redis://a.example:6379/0", "redis://a.example:6379/1")
    assert isinstance(app.broker_twin(), RedisBroker)
    assert isinstance(app.backend_twin(), RedisBackend)
    assert app.backend_twin().join(app.broker_twin()) is not None, "two databases of one server are one store"


def test_the_backend_is_beside_its_broker_unless_it_is_told_otherwise():
    app = Chicory(broker="redis://a.example:7000/2?key_prefix=shop")

    assert app.backend.address == "redis://a.example:7000/2"
    assert app.backend_twin().place.prefix == "shop"
    assert app.backend_twin().join(app.broker_twin()) is not None


def test_environment_variables(monkeypatch):
    monkeypatch.setenv("CHICORY_BROKER_REDIS_HOST", "b.example")
    monkeypatch.setenv("CHICORY_BROKER_REDIS_DB", "4")

    assert Chicory(broker="redis").broker.address == "redis://b.example:6379/4"


async def test_a_server_that_is_not_there_says_where():
    with pytest.raises(BrokerConnectionError, match=r"redis://127.0.0.1:1/0 cannot be reached"):
        async with Chicory(broker="redis://127.0.0.1:1/0"):
            pass
