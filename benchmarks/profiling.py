"""Where each microsecond of one task goes, by part: sampled from outside by py-spy, which slows the program little.

A process publishes or runs tasks on a real broker. First it does so alone, which tells how much CPU time a task costs; then
again under the sampler, which tells how that is shared out. A sample belongs to the part of its innermost frame that is not
of the interpreter or of the standard library: time in a list's ``append`` is time of whoever appends.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from benchmarks.environments import CACHE, ROOT, SERVERS, Environment
from benchmarks.runner import neutral
from benchmarks.servers import server

CONTENDER = {"memory": "chicory_sqlite", "sqlite": "chicory_sqlite", "redis": "chicory_redis", "nats": "chicory_nats"}
"""Broker: the contender whose environment has what it needs."""
PARTS_OF = tuple(CONTENDER)
_HZ = 400
_FRAME = re.compile(r"^(?P<name>.+?) \((?P<place>[^()]+?)(?::\d+)?\)$")
_KERNEL = re.compile(
    r"^(__)?(libc_)?(epoll_\w+|poll|select|writev?|send\w*|readv?|recv\w*|fsync|fdatasync|p(read|write)64|fcntl\w*|stat\w*|"
    r"fstat\w*|open\w*|close|connect|accept\w*|clock_nanosleep|sched_yield|syscall|futex\w*|sem_\w*wait\w*|pthread_cond_\w+)(@.*)?$"
)
_LOCKS = re.compile(r"^(PyThread_acquire_lock\w*|take_gil|sem_\w*wait\w*|pthread_cond_\w*wait\w*|futex\w*)$")
_PARTS = (
    # The first that matches a frame's file, or its library, wins.
    (
        "core: pump, worker, leases, clock",
        r"chicory/(pump|worker|lease|outbox|batch|vitals|heartbeat|guard|tally|loop_thread|suspects|clock)",
    ),
    (
        "core: execution and middleware",
        r"chicory/(execution|middleware|builtin|retry|verdict|faultpoints|invocation|context|threads|portal|watchdog|events)",
    ),
    ("core: codec and messages", r"chicory/(codec|message|serializer|border|record)|msgspec"),
    ("core: binding and validation", r"chicory/(signature|typing_rules)|pydantic"),
    ("core: publishing and results", r"chicory/(task|app|client|facade|result|options|broker|backend)"),
    ("core: logs", r"chicory/logs|structlog|/logging/"),
    ("core: memory broker", r"chicory/memory"),
    ("core: the rest", r"chicory/"),
    ("broker plugin", r"chicory_(sqlite|redis|nats)/"),
    ("client library", r"(^|/)(redis|hiredis|nats)/|hiredis"),
    ("SQLite", r"_?sqlite3"),
    ("event loop", r"asyncio|uvloop|libuv"),
    ("the task and the benchmark", r"benchmarks/|profiled\.py"),
)
_PATTERNS = tuple((part, re.compile(pattern)) for part, pattern in _PARTS)


def profile(what: str, broker: str, concurrency: int, n: int, stacks: Path | None) -> str:
    """The table of one profile, as Markdown; *stacks* keeps the samples."""
    environment = Environment(CONTENDER[broker])
    if reason := environment.missing():
        raise SystemExit(f"nothing to profile on {broker}: {reason}")
    python, tools = environment.prepare(), Environment(SERVERS).prepare()
    CACHE.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=CACHE))
    try:
        with server(broker, tools, folder) as running:
            command = [python, "-m", "benchmarks.profiled", what, broker, str(concurrency), str(n)]
            variables = {**neutral(), **running.environment(), "BENCHMARK_FOLDER": str(folder), "PYTHONPATH": str(ROOT)}
            found = _sample(command, variables, folder, Path(tools).with_name("py-spy"))
        lines = (folder / "stacks").read_text().splitlines()
        if stacks is not None:
            shutil.copy(folder / "stacks", stacks)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    title = f"{what} on {broker}, concurrency {concurrency}, {n:,} tasks"
    return table(title, shares(lines), found)


def _sample(command: list[str], variables: dict[str, str], folder: Path, sampler: Path) -> dict[str, float]:
    """Let the program measure itself alone, then again under the sampler."""
    pipe = subprocess.PIPE
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(command, env=variables, stderr=log, stdin=pipe, stdout=pipe, text=True) as program,
    ):
        found: dict[str, float] = json.loads(_line(program, folder))
        _line(program, folder)
        with _sampling(sampler, program.pid, folder / "stacks"):
            _tell(program, "go")
            _line(program, folder)
        _tell(program, "end")
    return found


@contextlib.contextmanager
def _sampling(sampler: Path, pid: int, output: Path) -> Iterator[None]:
    """py-spy on the process *pid*, from its first sample on; interrupted, it writes what it has."""
    command = [str(sampler), "record", "--native", "--rate", str(_HZ), "--format", "raw", "--output", str(output)]
    with subprocess.Popen([*command, "--pid", str(pid)], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        while "Sampling process" not in (line := process.stdout.readline() if process.stdout else ""):
            if not line:
                raise SystemExit(f"py-spy did not start: {process.stderr.read() if process.stderr else ''}")
        yield
        process.send_signal(signal.SIGINT)
        process.communicate()


def _line(program: subprocess.Popen[str], folder: Path) -> str:
    line = program.stdout.readline() if program.stdout else ""
    if not line:
        raise SystemExit(f"the profiled program ended: {(folder / 'log').read_text()}")
    return line


def _tell(program: subprocess.Popen[str], word: str) -> None:
    if program.stdin is not None:
        program.stdin.write(f"{word}\n")
        program.stdin.flush()


# --- samples -----------------------------------------------------------------------------------


def shares(stacks: Iterable[str]) -> Mapping[str, float]:
    """Part: its share of the samples in user mode. A line is ``frame;frame;… count``, the innermost frame last.

    Samples inside a system call are left out: most of them sleep, and what the kernel takes is counted by itself. A wait for
    a lock is recognised also where libc has no symbols: by an address that was seen below a function that waits.
    """
    samples = [(line.rpartition(" ")[0].split(";"), int(line.rpartition(" ")[2])) for line in stacks]
    waiting = {frames[-1] for frames, _ in samples if any(_LOCKS.match(_named(frame)[0]) for frame in frames[-4:])}
    counts: Counter[str] = Counter()
    for frames, count in samples:
        if frames[-1] not in waiting and not _KERNEL.match(_named(frames[-1])[0]):
            counts[part_of(frames)] += count
    total = sum(counts.values())
    return {part: count / total for part, count in counts.most_common()}


def part_of(frames: list[str]) -> str:
    """The part that a sample belongs to.

    >>> part_of(["main (app.py:3)", "Pump.run (chicory/pump.py:80)", "list_append (python3.11)"])
    'core: pump, worker, leases, clock'
    """
    for frame in reversed(frames):
        place = _named(frame)[1]
        for part, pattern in _PATTERNS:
            if pattern.search(place):
                return part
    return "interpreter"


def _named(frame: str) -> tuple[str, str]:
    """Function, and file or library."""
    found = _FRAME.match(frame)
    return (found["name"], found["place"]) if found else (frame, "")


def table(title: str, found: Mapping[str, float], cost: Mapping[str, float]) -> str:
    """Microseconds of one task by part."""
    user, kernel = cost["user"], cost["kernel"]
    total = user + kernel
    rows = [("the kernel, in system calls", kernel), *((part, share * user) for part, share in found.items())]
    lines = [
        f"{title}: {total:.1f} µs of CPU, {cost['wall']:.1f} µs of time a task",
        "",
        "| part | µs | share |",
        "| --- | --- | --- |",
    ]
    lines += [f"| {part} | {micros:.1f} | {micros / total:.0%} |" for part, micros in sorted(rows, key=lambda row: -row[1])]
    return "\n".join([*lines, f"| all | {total:.1f} | |"])
