"""Read by mypy and pyright only: sections of plugins keep their types in the configuration."""

from pathlib import Path
from typing import Literal, assert_type

from chicory import BackendType, BrokerType, Chicory, ChicoryConfig, WorkerConfig
from chicory.config import BackendConfig, BrokerConfig, SqliteBackendConfig, SqliteBrokerConfig

config = ChicoryConfig(
    broker=BrokerConfig(sqlite=SqliteBrokerConfig(path=Path("queue.db"), durability="normal")),
    backend=BackendConfig(sqlite=SqliteBackendConfig(path=Path("results.db"))),
    worker=WorkerConfig(concurrency=32, queue="default", use_dead_letter_queue=True),
)
app = Chicory(broker=BrokerType.SQLITE, backend=BackendType.SQLITE, config=config)

assert_type(config.broker.sqlite, SqliteBrokerConfig)
assert_type(config.broker.sqlite.path, Path)
assert_type(config.broker.sqlite.durability, Literal["full", "normal"])
assert_type(config.backend.sqlite.result_ttl, float | None)
assert_type(config.worker.concurrency, int)
assert_type(app.config.worker.queues, tuple[str, ...])
