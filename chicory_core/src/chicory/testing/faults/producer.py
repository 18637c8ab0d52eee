"""A producer that may be killed: ``python -m chicory.testing.faults.producer COUNT`` sends that many tasks under fixed ids.

One after the other, to the broker in ``CHICORY_BROKER_URL``; a second run sends the same again.
"""

from __future__ import annotations

import asyncio
import os
import sys

from chicory.testing.faults.chaos import app_on

__all__ = ["send"]


async def send(count: int) -> None:
    """Send *count* tasks, and wait for none."""
    async with app_on(os.environ) as app:
        for number in range(count):
            await app.send_task("faults.work", task_id=f"p{number}")


if __name__ == "__main__":
    asyncio.run(send(int(sys.argv[1])))
