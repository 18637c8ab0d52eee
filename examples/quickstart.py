"""A task, a call, a result: the shortest whole program.

Run it::

    python examples/quickstart.py

What appears (``<...>`` stands for what varies)::

    sent <id>, now PENDING
    1 + 2 = 3, now SUCCESS

There is no server: messages and results lie in one SQLite file, and the worker runs beside the caller.
A plain ``Chicory()`` keeps that file at ``.chicory/chicory.db``; a temporary directory leaves nothing behind.
"""

import asyncio
from tempfile import TemporaryDirectory

from chicory import Chicory, Worker

folder = TemporaryDirectory()
app = Chicory(broker=f"sqlite:///{folder.name}/chicory.db")


@app.task
async def add(a: int, b: int) -> int:
    return a + b


async def main() -> None:
    async with app:
        result = await add.delay(1, 2)
        print(f"sent {result.task_id}, now {await result.state()}")
        async with Worker(app):
            value = await result
        print(f"1 + 2 = {value}, now {await result.state()}")


if __name__ == "__main__":
    with folder:
        asyncio.run(main())
