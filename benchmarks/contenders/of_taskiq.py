"""What the two contenders of taskiq share."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from taskiq import AsyncBroker

from benchmarks import tasks
from benchmarks.adapter import AsyncAdapter, Row, Setup, script

_DEFAULT = 100


class TaskiqAdapter(AsyncAdapter):
    polls = True

    def __init__(self, broker: AsyncBroker, module: str) -> None:
        self._broker, self._module = broker, module
        self._look = 0.001
        functions = {
            "kept": tasks.kept,
            "ignored": tasks.ignored,
            "slept": tasks.slept,
            "threaded": tasks.kept_sync,
            "computed": tasks.computed,
            "carried": tasks.carried,
        }
        self._kinds: dict[str, Any] = {
            name: broker.register_task(function, task_name=name)  # type: ignore[arg-type, var-annotated] # bodies of any shape
            for name, function in functions.items()
        }

    def commands(self, setup: Setup) -> list[list[str]]:
        options = ["--workers", str(setup.processes), "--max-async-tasks", str(setup.tasks(_DEFAULT, _DEFAULT))]
        fixed = ["--log-level", "WARNING", "--ack-type", "when_saved", "--max-prefetch", "100"]
        return [[script("taskiq"), "worker", f"{self._module}:broker", *options, *fixed]]

    @contextlib.asynccontextmanager
    async def session(self, setup: Setup) -> AsyncIterator[None]:
        self._look = 0.001 if setup.tight else 0.2
        await self._broker.startup()
        yield
        await self._broker.shutdown()

    async def send(self, kind: str, row: Row) -> Any:
        return await self._kinds[kind].kiq(*row)

    async def wait(self, sent: Any) -> Any:
        return (await sent.wait_result(check_interval=self._look, timeout=10)).return_value
