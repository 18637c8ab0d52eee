"""cProfile of publishing or running 20,000 tasks on the memory broker: where the microseconds go.

Profiled code runs two to three times slower, functions that are called often most of all: read the order, not the seconds.
"""

from __future__ import annotations

import asyncio
import cProfile
import pstats
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from benchmarks import core

_N = 20_000
_ROWS = 25


def main() -> None:
    profile = cProfile.Profile()
    with asyncio.Runner(loop_factory=core.loop_factory()) as runner:
        runner.run(_WHAT[sys.argv[1]](profile))
    stats = pstats.Stats(profile)
    print(f"{stats.total_tt / _N * 1e6:.1f} µs a task, profiled")  # type: ignore[attr-defined] # not in the stubs
    stats.strip_dirs().sort_stats("tottime").print_stats(_ROWS)


async def _publish(profile: cProfile.Profile) -> None:
    app, task = core.app_with_task(lambda _: None)
    async with app:
        await core.publish(task, 500)
        profile.enable()
        for start in range(0, _N, 100):
            await asyncio.gather(*(task.delay(number) for number in range(start, start + 100)))
        profile.disable()


async def _run(profile: cProfile.Profile) -> None:
    await core.drain(_N, before=profile.enable, after=profile.disable)


_WHAT: dict[str, Callable[[cProfile.Profile], Coroutine[Any, Any, None]]] = {"publish": _publish, "run": _run}

if __name__ == "__main__":
    main()
