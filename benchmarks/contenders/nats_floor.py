"""The floor: nats-py on uvloop, without any framework, with messages of 200 bytes on a work-queue stream in a file.

Publishing by one call after another, by a gathered hundred, and by ``publish_async`` with up to a thousand unconfirmed.
Running by fetching a hundred and acknowledging each: without waiting for the server, and confirmed, a hundred at once.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable

import nats
import uvloop
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, RetentionPolicy, StreamConfig

from benchmarks.adapter import About
from benchmarks.floors import LOT, MESSAGE, rate

ABOUT = About(title="nats-py", broker="nats", guarantee="none", role="floor")
_SUBJECT, _STREAM, _DURABLE, _WINDOW = "floor.a", "floor", "worker", 1000


def _run(work: Callable[[JetStreamContext], Awaitable[dict[str, float]]]) -> dict[str, float]:
    async def run() -> dict[str, float]:
        client = await nats.connect(os.environ["BENCHMARK_SERVER"])
        try:
            context = client.jetstream(publish_async_max_pending=_WINDOW)
            await context.add_stream(StreamConfig(name=_STREAM, subjects=[_SUBJECT], retention=RetentionPolicy.WORK_QUEUE))
            return await work(context)
        finally:
            await client.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run())


async def _windowed(context: JetStreamContext, n: int) -> None:
    for _ in range(n):
        await context.publish_async(_SUBJECT, MESSAGE)
    await context.publish_async_completed()


def _publish(n: int) -> dict[str, float]:
    async def work(context: JetStreamContext) -> dict[str, float]:
        found = {}
        started = time.perf_counter()
        for _ in range(n // 5):
            await context.publish(_SUBJECT, MESSAGE)
        found["nats_one"] = rate(n // 5, started)
        started = time.perf_counter()
        for _ in range(n // LOT):
            await asyncio.gather(*(context.publish(_SUBJECT, MESSAGE) for _ in range(LOT)))
        found["nats_gather"] = rate(n, started)
        started = time.perf_counter()
        await _windowed(context, n)
        found["nats_window"] = rate(n, started)
        return found

    return _run(work)


def _drain(n: int, *, confirmed: bool) -> dict[str, float]:
    async def work(context: JetStreamContext) -> dict[str, float]:
        await _windowed(context, n)
        config = ConsumerConfig(durable_name=_DURABLE, ack_policy=AckPolicy.EXPLICIT, max_ack_pending=10_000)
        subscription = await context.pull_subscribe(_SUBJECT, durable=_DURABLE, config=config)
        started, done = time.perf_counter(), 0
        while done < n:
            messages = await subscription.fetch(LOT)
            if confirmed:
                await asyncio.gather(*(message.ack_sync() for message in messages))
            else:
                for message in messages:
                    await message.ack()
            done += len(messages)
        return {"nats_drain_confirmed" if confirmed else "nats_drain": rate(n, started)}

    return _run(work)


WORKLOADS = {
    "publish": _publish,
    "run_ignored": lambda n: _drain(n, confirmed=False),
    "run_results": lambda n: _drain(n, confirmed=True),
}
