"""Real worker processes of the command line, on the embedded default, in a directory of their own."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from chicory import AsyncResult, Chicory
from chicory.testing import eventually

LEASE = 1.5

TASKS = '''
import asyncio, os
from chicory import Chicory, TaskContext

app = Chicory()

def ledger(*words):
    """One line per fact, outside of what is tested: written whole, by any process."""
    line = " ".join(map(str, words)) + "\\n"
    fd = os.open("ledger.txt", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, line.encode())
    os.close(fd)

@app.task
async def add(a: int, b: int) -> int:
    return a + b

@app.task
async def note(ctx: TaskContext, seconds: float = 0.0) -> int:
    ledger("start", ctx.task_id, os.getpid(), ctx.retries)
    await asyncio.sleep(seconds)
    ledger("end", ctx.task_id, os.getpid(), ctx.retries)
    return os.getpid()

@app.task
async def slow_once(ctx: TaskContext) -> int:
    ledger("start", ctx.task_id, os.getpid(), ctx.retries)
    if not os.path.exists("slow"):
        open("slow", "w").close()
        await asyncio.sleep(60)
    return os.getpid()
'''


class Project:
    """A user's directory with a ``tasks.py``, and what runs in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.database = folder / ".chicory" / "chicory.db"
        self.processes: list[subprocess.Popen] = []
        (folder / "tasks.py").write_text(TASKS)

    def environment(self, **more: str) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("CHICORY_")}
        return {**clean, "CHICORY_WORKER_LEASE_SECONDS": str(LEASE), "PYTHONWARNINGS": "default", **more}

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen:
        """A ``chicory`` command in the background."""
        log = (self.folder / f"{len(self.processes)}.log").open("wb")
        with log:
            process = subprocess.Popen(
                [sys.executable, "-m", "chicory", *arguments],
                cwd=self.folder,
                env=self.environment(**environment),
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        process.log = Path(log.name)
        self.processes.append(process)
        return process

    def run(self, *arguments: str, timeout: float = 30, **environment: str) -> subprocess.CompletedProcess:
        """A ``chicory`` command to its end."""
        return subprocess.run(
            [sys.executable, "-m", "chicory", *arguments],
            cwd=self.folder,
            env=self.environment(**environment),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def app(self) -> Chicory:
        """The producer's app: it knows no task's code."""
        return Chicory(broker=f"sqlite:///{self.database}")

    def ledger(self, word: str = "start") -> list[list[str]]:
        """The facts that begin with *word*, without it."""
        path = self.folder / "ledger.txt"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line.split()[1:] for line in lines if line.startswith(f"{word} ")]

    def end(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()


@pytest.fixture
def project(tmp_path):
    made = Project(tmp_path)
    yield made
    made.end()


@pytest.fixture
def start_workers(project):
    """Starts ``chicory worker`` processes and waits until they work; gives them back by pid."""

    async def start(app, count=1, *arguments, **environment):
        before = {w.pid for w in await app.backend.get_active_workers()}
        started = [project.start("worker", "tasks:app", *arguments, **environment) for _ in range(count)]

        async def working():
            assert all(p.poll() is None for p in started), "\n".join(p.log.read_text() for p in started)
            return {w.pid for w in await app.backend.get_active_workers()} - before >= {p.pid for p in started}

        await eventually(working, within=20)
        return {process.pid: process for process in started}

    return start


async def ended(process: subprocess.Popen, within: float = 10) -> int:
    """The exit code of a process that is about to end."""
    await eventually(lambda: process.poll() is not None, within=within)
    if process.returncode:
        print(process.log.read_text()[-4000:])  # shown with the assertion that fails
    return process.returncode


def handle(app: Chicory, task_id: str) -> AsyncResult:
    return AsyncResult(task_id, app.backend)


@contextlib.contextmanager
def timed():
    """How long the block took: to compare with a bound of the contract, never with a wish."""
    began = time.monotonic()
    taken = []
    yield taken
    taken.append(time.monotonic() - began)


async def until(condition, within=15.0):
    return await eventually(condition, within=within)


async def gather(results, timeout=30.0):
    return await asyncio.wait_for(asyncio.gather(*(r.get() for r in results)), timeout)
