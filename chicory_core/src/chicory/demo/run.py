"""Runs the demo: worker processes on a database in a temporary directory, one task per file."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chicory.demo.report import Report
from chicory.errors import ConfigurationError, TaskFailedError
from chicory.launch import Launch, launching
from chicory.supervisor import worker_command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from chicory.app import Chicory
    from chicory.result import AsyncResult

__all__ = ["LEASE_SECONDS", "run_demo", "source_files"]

LEASE_SECONDS = 3.0
"""Short, so that what a killed worker held comes back while people watch."""
_STOP_SECONDS = 30.0
_SILENCE = 60.0
"""Seconds without any result after which the rest counts as lost."""


def source_files(folder: Path | None) -> list[Path]:
    """The Python files below *folder*; by default those of the standard library, without its site-packages.

    Raises:
        ConfigurationError: there is none.
    """
    root = (folder or Path(sysconfig.get_paths()["stdlib"])).resolve()
    files = sorted(p for p in root.rglob("*.py") if "site-packages" not in p.relative_to(root).parts and p.is_file())
    if not files:
        raise ConfigurationError(f"no Python file below {str(root)!r}: name another folder")
    return files


def run_demo(
    files: Sequence[Path], *, workers: int, chaos: bool, on_progress: Callable[[Report], None], plugin: str | None = None
) -> Report:
    """Count *files* on that many worker processes; with *chaos*, one of them is killed half-way.

    Messages go through a file of their own, or through the server of *plugin*, as its settings say.

    *on_progress* is called whenever a result came. What is not in the report's numbers is lost, and counted as that.
    """
    with tempfile.TemporaryDirectory(prefix="chicory-demo-") as folder:
        url = f"sqlite:///{folder}/demo.db"
        known = {"lease_seconds": LEASE_SECONDS}
        launch = Launch(broker=url, worker=known) if plugin is None else Launch(plugins=(plugin,), worker=known)
        with launching(launch):
            tasks: Any = import_module("chicory.demo.tasks")
        with _workers(Path(folder), ["--broker", url] if plugin is None else ["--plugin", plugin], workers):
            return asyncio.run(_count(tasks, files, workers=workers, chaos=chaos, on_progress=on_progress))


@contextmanager
def _workers(folder: Path, where: Sequence[str], count: int) -> Iterator[None]:
    """A supervisor with *count* worker processes; stopped at the end. *where* are the options that say where messages go."""
    command = worker_command(["chicory.demo.tasks:app", "--workers", str(count), *where, "--log-level", "WARNING"])
    kept = ("CHICORY_BROKER_", "CHICORY_BACKEND_") if "--plugin" in where else ()
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("CHICORY_") or name.startswith(kept)
    }
    environment["CHICORY_WORKER_LEASE_SECONDS"] = str(LEASE_SECONDS)
    log = folder / "workers.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(command, env=environment, cwd=folder, stderr=errors)  # noqa: S603 - our own command
    try:
        yield
    except BaseException:
        sys.stderr.write(log.read_text(encoding="utf-8", errors="replace"))
        raise
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def _count(
    tasks: Any, files: Sequence[Path], *, workers: int, chaos: bool, on_progress: Callable[[Report], None]
) -> Report:
    report = Report(sent=len(files), workers=workers)
    async with tasks.app as app:
        await _until_working(app, workers)
        started = time.monotonic()
        results = await tasks.count_file.delay_many([(path,) for path in files])
        waiting = {
            asyncio.ensure_future(_collect(report, path, result)): path for path, result in zip(files, results, strict=True)
        }
        try:
            while waiting:
                done, _ = await asyncio.wait(waiting, timeout=_SILENCE, return_when=asyncio.FIRST_COMPLETED)
                if not done:
                    break
                for finished in done:
                    del waiting[finished]
                    finished.result()
                if chaos and report.killed is None and report.ended >= report.sent // 2:
                    report.killed = await _kill_one(app)
                on_progress(report)
        finally:
            for collector in waiting:
                collector.cancel()
        report.seconds = time.monotonic() - started
    return report


async def _collect(report: Report, path: Path, result: AsyncResult[Any]) -> None:
    try:
        report.add(await result.get())
    except TaskFailedError as error:
        report.fail(str(path), f"{error.error_type}: {error.error}")
    info = await result.info()
    report.retries += info.retries
    report.again += max(0, info.delivery_count - 1)


async def _until_working(app: Chicory, workers: int) -> None:
    """Wait for the first heartbeat of every worker: a killed one should not be the only one."""
    assert app.backend is not None, "the embedded default keeps results"  # noqa: S101
    deadline = time.monotonic() + _STOP_SECONDS
    while len(await app.backend.get_active_workers()) < workers:
        if time.monotonic() > deadline:
            raise ConfigurationError(f"the worker processes did not start within {_STOP_SECONDS:.0f} s; their log is above")
        await asyncio.sleep(0.05)


async def _kill_one(app: Chicory) -> str | None:
    assert app.backend is not None, "the embedded default keeps results"  # noqa: S101
    victims = await app.backend.get_active_workers()
    if not victims:
        return None
    victim = victims[0]
    os.kill(victim.pid, signal.SIGKILL)
    return f"worker process {victim.pid}, with SIGKILL, half-way"
