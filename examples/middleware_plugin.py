"""A plugin in one module: a layer around every execution, and how chicory finds it.

Run it::

    python examples/middleware_plugin.py

What appears (``<...>`` stands for what varies)::

    stopwatch from chicory-stopwatch: active
    add took <milliseconds> ms

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


async def stopwatch(attempt: Attempt, proceed: Next) -> Outcome:
    start = time.perf_counter()
    outcome = await proceed(attempt)
    print(f"{attempt.task_name} took {(time.perf_counter() - start) * 1000:.1f} ms")
    return outcome


@hookimpl
def chicory_execute_middleware() -> list[ExecuteMiddleware]:
    return [ExecuteMiddleware(stage=Stage.OBSERVE, name="stopwatch", layer=stopwatch)]


def install(folder: Path) -> None:
    info = folder / "chicory_stopwatch-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: chicory-stopwatch\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[chicory.plugins]\nstopwatch = middleware_plugin\n")
    sys.path.append(str(folder))


async def main() -> None:
    app = Chicory(broker="memory://")
    print(*(f"{p.name} from {p.distribution}: {p.state}" for p in app.plugins if p.name == "stopwatch"))
    add = app.task(name="add")(lambda a, b: a + b)
    async with app, Worker(app):
        await (await add.delay(1, 2))


if __name__ == "__main__":
    with TemporaryDirectory() as temporary:
        install(Path(temporary))
        asyncio.run(main())
