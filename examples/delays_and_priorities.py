"""When a call starts, and before which others: countdown, priority, queue, expires.

Run it::

    python examples/delays_and_priorities.py

What appears (``<...>`` stands for what varies)::

    1. urgent, from the queue alarms
    2. important, from the queue default
    3. usual, from the queue default
    4. later, from the queue default
    EXPIRED: task 'delays_and_priorities.note' expired at <moment> before it started

The queue named first is emptied first; inside a queue priority 9 comes before 0, and a call with a countdown when it is due.
"""

import asyncio
import logging
from itertools import count

from chicory import Chicory, TaskContext, Worker, WorkerConfig

logging.disable()  # the worker's log would tell of the expired one
app = Chicory(broker="memory://")
place = count(1)


@app.task
async def note(ctx: TaskContext, text: str) -> None:
    print(f"{next(place)}. {text}, from the queue {ctx.queue}")


async def main() -> None:
    async with app:
        results = [
            await note.options(countdown=0.5).delay("later"),
            await note.delay("usual"),
            await note.options(priority=9).delay("important"),
            await note.options(queue="alarms").delay("urgent"),
        ]
        stale = await note.options(expires=0.001).delay("too late to be of use")
        await asyncio.sleep(0.01)  # nobody works yet, so that all of them wait, and one for too long
        async with Worker(app, WorkerConfig(queue="alarms,default", concurrency=1)):
            await asyncio.gather(*results)
        info = await stale.info()
        print(f"{info.state}: {info.error}")


if __name__ == "__main__":
    asyncio.run(main())
