"""What failed for good is set aside (plugin ``dlq``), looked at, mended, and replayed under its own id.

Run it::

    python examples/dead_letters.py

What appears::

    order-17 ended as DEAD_LETTERED, reason retries_exhausted
    order-17: PermissionError: card blocked is refused, after 1 retry
    5 from visa
    0 dead letters left
"""

import asyncio
import logging

from chicory import AsyncResult, Chicory, RetryPolicy, TaskFailedError, Worker, WorkerConfig
from chicory_dlq import DeadLetters

logging.disable()  # the worker's log would say it too
app = Chicory(broker="memory://")


@app.task(retry_policy=RetryPolicy(max_retries=1, retry_delay=0.1, jitter=False))
async def charge(card: str, amount: int) -> str:
    if card == "blocked":
        raise PermissionError(f"card {card} is refused")
    return f"{amount} from {card}"


async def main() -> None:
    async with app, Worker(app, WorkerConfig(use_dead_letter_queue=True)):
        try:
            await (await charge.options(task_id="order-17").delay("blocked", 5))
        except TaskFailedError as error:
            print(f"{error.task_id} ended as {error.state}, reason {error.reason}")

        letters = app.require(DeadLetters)
        async for letter in letters.each():
            death = letter.death
            print(f"{letter.id}: {death.error_type}: {death.error}, after {death.retries} retry")
            await letters.replay(letter.id, arguments={"card": "visa"})

        print(await AsyncResult("order-17", app.backend))
        print(f"{await letters.count()} dead letters left")


if __name__ == "__main__":
    asyncio.run(main())
