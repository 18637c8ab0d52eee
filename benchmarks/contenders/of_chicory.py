"""What chicory's three contenders share: the real command, which takes uvloop when it is installed, and the plain client.

Where a row does not say otherwise, tasks run with ``--concurrency 100``, as those of the async peers do; round trips, start
and memory are those of all defaults.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

from benchmarks import tasks
from benchmarks.adapter import AsyncAdapter, Row, Setup, script
from chicory import Chicory

_FASTEST = 100


class ChicoryAdapter(AsyncAdapter):
    bulk = True

    def __init__(self, app: Chicory, module: str) -> None:
        self._app, self._module = app, module
        self.kinds: dict[str, Any] = {
            "kept": app.task(tasks.kept),
            "ignored": app.task(ignore_result=True)(tasks.ignored),
            "slept": app.task(tasks.slept),
            "threaded": app.task(tasks.kept_sync),
            "computed": app.task(tasks.computed),
            "carried": app.task(tasks.carried),
        }

    def commands(self, setup: Setup) -> list[list[str]]:
        command = [script("chicory"), "worker", f"{self._module}:app", "--log-level", "WARNING"]
        if setup.concurrency >= 0:
            command += ["--concurrency", str(setup.tasks(_FASTEST, 0))]
        if setup.processes > 1:
            command += ["--workers", str(setup.processes)]
        return [command]

    @contextlib.asynccontextmanager
    async def session(self, setup: Setup) -> AsyncIterator[None]:
        async with self._app:
            yield

    async def send(self, kind: str, row: Row) -> Any:
        return await self.kinds[kind].delay(*row)

    async def send_many(self, kind: str, rows: Sequence[Row]) -> None:
        await self.kinds[kind].delay_many(rows)

    async def wait(self, sent: Any) -> Any:
        return await sent.get(timeout=10)
