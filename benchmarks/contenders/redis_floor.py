"""The floor: redis-py with hiredis on uvloop, without any framework, with messages of 200 bytes.

Publishing by one command after another, by a gathered hundred on a pool of connections, by a pipeline of a hundred and by one
script call for a hundred. Running by reading a hundred and settling them with one script call: a result each, one XACK and
one XDEL. ``redis-benchmark`` (or ``valkey-benchmark``) of the machine, where it is installed, measures the server itself.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import uvloop
from redis.asyncio import Redis

from benchmarks.adapter import About
from benchmarks.floors import LOT, MESSAGE, rate

ABOUT = About(title="redis-py", broker="redis", guarantee="none", role="floor")
_GROUP, _STREAM = "group", "stream"
_PUBLISH = "for _, body in ipairs(ARGV) do redis.call('XADD', KEYS[1], '*', 'b', body) end"
_SETTLE = """
for _, id in ipairs(ARGV) do redis.call('SET', 'result:' .. id, 'true', 'EX', 3600) end
redis.call('XACK', KEYS[1], KEYS[2], unpack(ARGV))
redis.call('XDEL', KEYS[1], unpack(ARGV))
"""
_SETTLE_NO_RESULT = _SETTLE.replace(_SETTLE.splitlines()[1], "")
Client = Any
"""A client of redis-py, whose stubs do not know what async commands return."""


def _run(work: Callable[[Client], Awaitable[dict[str, float]]]) -> dict[str, float]:
    async def run() -> dict[str, float]:
        client = Redis.from_url(os.environ["BENCHMARK_SERVER"])
        try:
            await client.xgroup_create(_STREAM, _GROUP, id="0", mkstream=True)
            return await work(client)
        finally:
            await client.aclose()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run())


def _publish(n: int) -> dict[str, float]:
    async def work(client: Client) -> dict[str, float]:
        found = {}
        started = time.perf_counter()
        for _ in range(n // 5):
            await client.xadd(_STREAM, {"b": MESSAGE})
        found["redis_one"] = rate(n // 5, started)
        await asyncio.gather(*(client.xadd(_STREAM, {"b": MESSAGE}) for _ in range(LOT)))  # opens the connections
        started = time.perf_counter()
        for _ in range(n // LOT):
            await asyncio.gather(*(client.xadd(_STREAM, {"b": MESSAGE}) for _ in range(LOT)))
        found["redis_gather"] = rate(n, started)
        started = time.perf_counter()
        for _ in range(n // LOT):
            pipeline = client.pipeline(transaction=False)
            for _ in range(LOT):
                pipeline.xadd(_STREAM, {"b": MESSAGE})
            await pipeline.execute()
        found["redis_pipeline"] = rate(n, started)
        script = client.register_script(_PUBLISH)
        started = time.perf_counter()
        for _ in range(n // LOT):
            await script(keys=[_STREAM], args=[MESSAGE] * LOT)
        found["redis_script"] = rate(n, started)
        return found

    return _run(work)


def _drain(n: int, name: str, text: str) -> dict[str, float]:
    async def work(client: Client) -> dict[str, float]:
        publish, settle = client.register_script(_PUBLISH), client.register_script(text)
        for _ in range(n // LOT):
            await publish(keys=[_STREAM], args=[MESSAGE] * LOT)
        started, done = time.perf_counter(), 0
        while done < n // LOT * LOT:
            ((_, read),) = await client.xreadgroup(_GROUP, "me", {_STREAM: ">"}, count=LOT)
            await settle(keys=[_STREAM, _GROUP], args=[id_ for id_, _ in read])
            done += len(read)
        return {name: rate(done, started)}

    return _run(work)


def _server(n: int) -> dict[str, float]:
    """XADD a second by the server's own benchmark, 50 clients: one command at a time, and fifty."""
    program = shutil.which("valkey-benchmark") or shutil.which("redis-benchmark")
    if program is None:
        return {}
    place = urlsplit(os.environ["BENCHMARK_SERVER"])
    fixed = [program, "-h", str(place.hostname), "-p", str(place.port), "-q", "--csv", "-c", "50"]
    found = {}
    for name, depth in (("server_xadd", 1), ("server_xadd_pipelined", 50)):
        command = [*fixed, "-n", str(n * 5), "-P", str(depth), "XADD", "stream", "*", "b", MESSAGE.decode()]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        found[name] = _rate_of(lines[-1])
    return found


def _rate_of(line: str) -> float:
    """The second column, after a name that may itself hold commas and quotes: ``"XADD …","49875.31","0.5",…``."""
    columns = line.strip().strip('"').split('","')
    return float(columns[-7])


WORKLOADS = {
    "publish": _publish,
    "run_results": lambda n: _drain(n, "redis_drain", _SETTLE),
    "run_ignored": lambda n: _drain(n, "redis_drain_ignored", _SETTLE_NO_RESULT),
    "server": _server,
}
