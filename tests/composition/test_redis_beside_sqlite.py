"""Two plugins with brokers and backends, side by side: who is chosen, and what is one store."""

import pytest

from chicory import Chicory
from chicory.launch import Launch, launching
from chicory_redis import RedisBackend, RedisBroker
from chicory_sqlite import SqliteBackend, SqliteBroker


def parts(app):
    return type(app.broker_twin()), type(app.backend_twin())


@pytest.mark.parametrize(
    ("broker", "backend", "expected", "is_one"),
    [
        ("redis://127.0.0.1/0", None, (RedisBroker, RedisBackend), True),
        ("redis://127.0.0.1/0", "redis://127.0.0.1/1", (RedisBroker, RedisBackend), True),
        ("redis://127.0.0.1/0", "redis://127.0.0.1:6380/0", (RedisBroker, RedisBackend), False),
        ("redis://127.0.0.1/0", "sqlite:///results.db", (RedisBroker, SqliteBackend), False),
        ("sqlite:///queue.db", "redis://127.0.0.1/0", (SqliteBroker, RedisBackend), False),
        ("sqlite:///queue.db", None, (SqliteBroker, SqliteBackend), True),
    ],
)
def test_every_pair(broker, backend, expected, is_one):
    app = Chicory(broker=broker) if backend is None else Chicory(broker=broker, backend=backend)

    assert parts(app) == expected
    assert (app.backend_twin().join(app.broker_twin()) is not None) is is_one


def test_the_plugin_that_is_asked_for_beats_what_the_code_says():
    with launching(Launch(plugins=("redis",))):
        app = Chicory(broker="sqlite:///queue.db")

    assert parts(app) == (RedisBroker, RedisBackend)


def test_both_are_there_and_the_embedded_default_stays_the_default(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    app = Chicory()

    assert parts(app) == (SqliteBroker, SqliteBackend)
    assert {info.name for info in app.plugins if info.state == "active"} >= {"redis", "sqlite"}
