"""A policy retries, ``ctx.retry`` asks for one more try, ``ctx.fail`` ends it; a task that waits for its retry says RETRY.

Run it::

    python examples/retries.py

What appears::

    fetch: try 1 fails
    fetch is in state RETRY
    fetch: try 2 asks for another
    fetch: try 3
    fetch gave 'page' after 2 retries
    forbidden ended as FAILURE with PermissionError: not for us
"""

import asyncio
import logging

from chicory import Chicory, RetryBackoff, RetryPolicy, TaskContext, TaskFailedError, Worker

logging.disable()  # the worker's log would say it too
app = Chicory(broker="memory://")
policy = RetryPolicy(max_retries=3, retry_delay=0.3, backoff=RetryBackoff.FIXED, jitter=False, retry_on=(OSError,))


@app.task(retry_policy=policy)
async def fetch(ctx: TaskContext) -> str:
    if ctx.retries == 0:
        print("fetch: try 1 fails")
        raise ConnectionError("the policy covers it, for it is an OSError")
    if ctx.retries == 1:
        print("fetch: try 2 asks for another")
        ctx.retry(countdown=0.1)
    print("fetch: try 3")
    return "page"


@app.task(retry_policy=policy)
async def forbidden(ctx: TaskContext) -> None:
    ctx.fail(PermissionError("not for us"))


async def main() -> None:
    async with app, Worker(app):
        result = await fetch.delay()
        while await result.state() != "RETRY":  # noqa: ASYNC110 - only the end of a task is pushed
            await asyncio.sleep(0.01)
        print(f"fetch is in state {await result.state()}")
        print(f"fetch gave {await result!r} after {(await result.info()).retries} retries")
        try:
            await (await forbidden.delay())
        except TaskFailedError as error:
            print(f"forbidden ended as {error.state} with {error.error_type}: {error.error}")


if __name__ == "__main__":
    asyncio.run(main())
