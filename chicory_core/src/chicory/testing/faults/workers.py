"""Real worker processes of one test: started, frozen, killed, and ended with it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any, final

import msgspec

from chicory.testing.clock import eventually
from chicory.testing.faults.ledger import LEDGER_VARIABLE, Ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

__all__ = ["WORKLOAD", "WorkerProcess", "Workers"]

WORKLOAD = "chicory.testing.faults.workload:app"
_START_WITHIN = 60.0


@final
class WorkerProcess:
    """One ``chicory worker``."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, ledger: Ledger) -> None:
        self._process, self._log, self._ledger = process, log, ledger
        self._is_frozen = False

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative if a signal ended it."""
        return self._process.poll()

    def log(self) -> str:
        """What it has written so far."""
        return self._log.read_text(errors="replace")

    def said(self, event: str) -> list[dict[str, Any]]:
        """The log lines of that event."""
        lines = [msgspec.json.decode(line) for line in self.log().splitlines() if line.startswith("{") and line.endswith("}")]
        return [line for line in lines if line.get("event") == event]

    # --- faults ----------------------------------------------------------------------------------

    def kill(self) -> None:
        """SIGKILL; returns once it is gone."""
        self._process.kill()
        self._process.wait()
        self._ledger.note("killed", pid=self.pid)

    def freeze(self) -> None:
        """SIGSTOP."""
        self._ledger.note("frozen", pid=self.pid)
        self._process.send_signal(signal.SIGSTOP)
        self._is_frozen = True

    def thaw(self) -> None:
        """SIGCONT."""
        self._is_frozen = False
        self._ledger.note("thawed", pid=self.pid)
        self._process.send_signal(signal.SIGCONT)

    def signal(self, number: int) -> None:
        """Send any other signal."""
        self._process.send_signal(number)

    async def ended(self, within: float = 20.0) -> int:
        """Its exit code, once it has ended.

        Raises:
            AssertionError: it has not, *within* seconds.
        """
        await eventually(lambda: self.exit_code is not None, within=within)
        if self.exit_code not in (0, -signal.SIGKILL):
            print(self.log()[-4000:])  # noqa: T201 - pytest shows it with the assertion that fails
        return int(self._process.returncode)

    def end(self) -> None:
        """Leave nothing behind."""
        if self.exit_code is None:
            if self._is_frozen:
                self._process.send_signal(signal.SIGCONT)
            self._process.kill()
        self._process.wait()


@final
class Workers:
    """Starts workers of the workload in *folder*, with *environment* over that of this process; ends them all at the end."""

    def __init__(self, folder: Path, ledger: Ledger, environment: Mapping[str, str]) -> None:
        self._folder, self._ledger = folder, ledger
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("CHICORY_", "COV_", "FAULTS_"))}
        known = {"TMPDIR": str(folder), "CHICORY_WORKER_LOG_FORMAT": "json", LEDGER_VARIABLE: str(ledger.path)}
        self._environment = {**clean, **known, **environment}
        self.all: list[WorkerProcess] = []

    def begin(
        self, *arguments: str, app: str = WORKLOAD, preexec: Callable[[], None] | None = None, **environment: str
    ) -> WorkerProcess:
        """Start one, without waiting for it; *preexec* runs in it before it becomes a worker."""
        log = self._folder / f"worker-{len(self.all)}.log"
        with log.open("wb") as errors:
            process = subprocess.Popen(  # noqa: S603 - this interpreter, with arguments of the test
                [sys.executable, "-m", "chicory", "worker", app, *arguments],
                cwd=self._folder,
                env={**self._environment, **environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                preexec_fn=preexec,  # noqa: PLW1509 - sets a limit, and nothing else
            )
        worker = WorkerProcess(process, log, self._ledger)
        self.all.append(worker)
        return worker

    async def start(self, count: int = 1, *arguments: str, **environment: str) -> list[WorkerProcess]:
        """Start *count*, and return once they work.

        Raises:
            AssertionError: one has ended, or takes too long.
        """
        started = [self.begin(*arguments, app=WORKLOAD, preexec=None, **environment) for _ in range(count)]
        await asyncio.gather(*(self.working(worker) for worker in started))
        return started

    async def working(self, worker: WorkerProcess) -> None:
        """Return once *worker* works."""

        def works() -> bool:
            assert worker.exit_code is None, f"the worker has ended with {worker.exit_code}:\n{worker.log()}"
            return bool(worker.said("worker_started"))

        await eventually(works, within=_START_WITHIN)

    def end(self) -> None:
        """End all that run."""
        for worker in self.all:
            worker.end()
