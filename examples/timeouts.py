"""A limit in seconds for one try of a task: what it does to async code, to a thread.

Run it::

    python examples/timeouts.py

What appears (``<...>`` stands for what varies)::

    download has <seconds> s left
    download was cancelled, and could clean up
    FAILURE: task 'timeouts.download' ran longer than its timeout of 0.2 s
    FAILURE: task 'timeouts.crunch' ran longer than its timeout of 0.2 s
    the thread that nobody can stop ends only now

An async task is cancelled at its next ``await``. A thread cannot be stopped: the task has failed, its thread runs on.
"""

import asyncio
import logging
import time
from datetime import UTC, datetime

from chicory import Chicory, TaskContext, TaskFailedError, Worker

logging.disable()  # the worker's log would say it too
app = Chicory(broker="memory://")


@app.task(timeout=0.2)
async def download(ctx: TaskContext) -> None:
    print(f"download has {(ctx.deadline - datetime.now(UTC)).total_seconds():.1f} s left")
    try:
        await asyncio.sleep(60)
    finally:
        print("download was cancelled, and could clean up")


@app.task(timeout=0.2)
def crunch() -> None:
    time.sleep(1)
    print("the thread that nobody can stop ends only now")


async def main() -> None:
    async with app, Worker(app):
        for task in (download, crunch):
            try:
                await (await task.delay())
            except TaskFailedError as error:
                print(f"{error.state}: {error.error}")
        await asyncio.sleep(1)  # the worker goes on


if __name__ == "__main__":
    asyncio.run(main())
