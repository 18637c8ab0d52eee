"""A plugin in one module: a layer around every execution, and a sink for events; and how chicory finds it.

Run it::

    python examples/middleware_plugin.py

What appears (``<...>`` stands for what varies)::

    plugin stopwatch from chicory-stopwatch: active
    event worker.started
    event task.published
    event task.started
    middleware_plugin.add took <milliseconds> ms
    event task.succeeded
    event worker.draining
    event worker.stopped

A package says where its plugin is in its ``pyproject.toml``; `install` below leaves what ``pip`` makes of these lines::

    [project.entry-points."chicory.plugins"]
    stopwatch = "middleware_plugin"
"""

import asyncio
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from chicory import Chicory, Worker
from chicory.plugin import Attempt, ExecuteMiddleware, Next, Outcome, Stage, hookimpl

CHICORY_API = (1, 0)


async def stopwatch(attempt: Attempt, proceed: Next) -> Outcome:
    start = time.perf_counter()
    outcome = await proceed(attempt)
    print(f"{attempt.task_name} took {(time.perf_counter() - start) * 1000:.1f} ms")
    return outcome


@hookimpl
def chicory_execute_middleware() -> list[ExecuteMiddleware]:
    return [ExecuteMiddleware(stage=Stage.OBSERVE, name="stopwatch", layer=stopwatch)]


@hookimpl
def chicory_event_sinks():
    return [lambda event: print(f"event {event.kind}")]


def install(folder: str) -> None:
    info = Path(folder, "chicory_stopwatch-1.0.dist-info")
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: chicory-stopwatch\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[chicory.plugins]\nstopwatch = middleware_plugin\n")
    sys.path.append(folder)


async def main() -> None:
    app = Chicory(broker="memory://")
    print(*(f"plugin {p.name} from {p.distribution}: {p.state}" for p in app.plugins if p.name == "stopwatch"))

    @app.task(name="middleware_plugin.add")
    async def add(a: int, b: int) -> int:
        return a + b

    async with app, Worker(app):
        await (await add.delay(1, 2))


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        install(folder)
        asyncio.run(main())
