"""The steps that workloads are made of: workers, waiting, and what a process takes."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

from benchmarks.adapter import Setup
from benchmarks.ledger import PAUSE
from benchmarks.tasks import FOLDER

_PATIENCE = 240.0
_END_WAIT = 15.0
_SUBREAPER = 36
Workers = Sequence[subprocess.Popen[bytes]]


@contextlib.contextmanager
def workers(commands: Sequence[Sequence[str]], setup: Setup) -> Iterator[Workers]:
    """A contender's own commands as child processes, each in a session of its own; SIGTERM ends them."""
    environment = {**os.environ, **setup.environment()}
    running: list[subprocess.Popen[bytes]] = []
    try:
        with (FOLDER / "worker.log").open("wb") as log:
            running.extend(_started(command, environment, log) for command in commands)
        yield running
    finally:
        for process in running:
            process.send_signal(signal.SIGTERM)
        for process in running:
            _end(process)


def _started(command: Sequence[str], environment: dict[str, str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, cwd=FOLDER, stdout=log, stderr=log, env=environment, start_new_session=True)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Wait for it; if it does not end, or leaves children, end its session."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_END_WAIT)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    # Children that it left are ours now (`adopt_orphans`): waited for, their CPU time counts as ours, not as other programs'.
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-process.pid, 0)


def adopt_orphans() -> None:
    """Become the parent of descendants whose parent ends (prctl(2), PR_SET_CHILD_SUBREAPER)."""
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)


def until(is_true: Callable[[], bool], running: Workers, *, pause: float = PAUSE) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not is_true():
        ended = [process.returncode for process in running if process.poll() is not None]
        if ended or time.monotonic() > deadline:
            log = (FOLDER / "worker.log").read_text(errors="replace")[-3000:]
            raise RuntimeError(f"a worker ended ({ended}), or it took over {_PATIENCE} s:\n{log}")
        time.sleep(pause)


def require(is_true: bool, otherwise: str) -> None:  # noqa: FBT001 - reads like an assert, which -O would drop
    if not is_true:
        raise RuntimeError(otherwise)


# --- what processes take -----------------------------------------------------------------------


def tree(running: Workers) -> list[int]:
    """The processes and all their descendants: some peers' commands are supervisors of one worker."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found = [process.pid for process in running]
    for pid in found:
        found.extend(children.get(pid, []))
    return found


def private_mb(pids: Sequence[int]) -> float:
    """Proportional set size: what processes share is counted once (proc(5), smaps_rollup)."""
    total = 0
    for pid in pids:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def resident_mb(pids: Sequence[int]) -> float:
    """VmRSS of the largest of them, which is the worker."""
    return max(_status(pid) for pid in pids) / 1024


def _status(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def cpu_seconds(pids: Sequence[int]) -> float:
    """utime and stime (proc(5))."""
    return sum(_ticks(pid) for pid in pids) / os.sysconf("SC_CLK_TCK")


def _ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
