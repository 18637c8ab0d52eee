"""What the two contenders of huey share. It promises at most once: a message leaves the queue before its task runs.

``-q`` (no log line per task) and ``-n`` (no periodic tasks). Tasks that return None store nothing. The tight round trip
polls each millisecond on both sides; the other one is huey as it comes. All of its tasks are sync, so the row of sync tasks
is the same as that of running.
"""

from __future__ import annotations

from typing import Any

from huey.api import Huey

from benchmarks import tasks
from benchmarks.adapter import Row, Setup, SyncAdapter, script

_TIGHT = ("--delay", "0.001", "--max-delay", "0.001", "--backoff", "1")


class HueyAdapter(SyncAdapter):
    polls = True

    def __init__(self, huey: Huey, module: str, threads: int) -> None:
        super().__init__()
        self._module, self._threads = module, threads
        self._kinds: dict[str, Any] = {
            name: huey.task(name=name)(function)
            for name, function in {
                "kept": tasks.kept_sync,
                "ignored": tasks.ignored_sync,
                "slept": tasks.slept_sync,
                "computed": tasks.computed,
                "carried": tasks.carried_sync,
            }.items()
        }

    def commands(self, setup: Setup) -> list[list[str]]:
        threads = setup.tasks(self._threads, self._threads)
        kind = ["-k", "process", "-w", str(setup.processes)] if setup.processes > 1 else ["-k", "thread", "-w", str(threads)]
        tight = _TIGHT if setup.tight and setup.concurrency == -1 else ()
        return [[script("huey_consumer"), f"{self._module}.huey", "-q", "-n", "-g", "TERM", *kind, *tight]]

    def send(self, kind: str, row: Row) -> Any:
        return self._kinds[kind](*row)

    def wait(self, sent: Any) -> Any:
        tight = {"backoff": 1, "max_delay": 0.001} if self.setup.tight else {}
        return sent.get(blocking=True, timeout=10, **tight)
