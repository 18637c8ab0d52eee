"""A thousand calls on two processes of ``chicory worker``: sent together, collected as they come.

Run it::

    python examples/many.py

What appears (``<...>`` stands for what varies)::

    1000 calls sent
    the first result came while <many> others were not ready
    sum of all squares: 332833500, from 2 processes
"""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from chicory import AsyncResult, Chicory

if __name__ == "__main__":
    folder = TemporaryDirectory()
    os.environ["CHICORY_BROKER_URL"] = f"sqlite:///{folder.name}/chicory.db"  # for this process and its workers
app = Chicory()


@app.task
def square(n: int) -> tuple[int, int]:
    time.sleep(0.01)  # stands for work
    return os.getpid(), n * n


async def collect(results: list[AsyncResult[tuple[int, int]]]) -> None:
    waiting = [asyncio.ensure_future(result.get(timeout=30)) for result in results]
    values = []
    for first_come in asyncio.as_completed(waiting):
        values.append(await first_come)
        if len(values) == 1:
            print(f"the first result came while {sum(not w.done() for w in waiting)} others were not ready")
    print(f"sum of all squares: {sum(n for _, n in values)}, from {len({pid for pid, _ in values})} processes")


async def main() -> None:
    async with app:
        results = await square.delay_many([(n,) for n in range(1000)])
        print(f"{len(results)} calls sent")
        await collect(results)


if __name__ == "__main__":
    command = [sys.executable, "-m", "chicory", "worker", "many:app", "--workers", "2", "--log-level", "error"]
    with folder, subprocess.Popen(command, cwd=Path(__file__).parent) as worker:  # noqa: S603 - our own command
        try:
            asyncio.run(main())
        finally:
            worker.terminate()
