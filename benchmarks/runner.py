"""Runs the measurements: contenders take turns, each measurement has fresh processes, a fresh server and an empty directory."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.environments import CACHE, ROOT, SERVERS, Environment, OthersWatch, machine
from benchmarks.servers import server

Results = dict[str, Any]
_TIME_LIMIT = 900.0
_END_WAIT = 60.0
NOISE = 0.25
"""Cores taken by other programs from which on a measurement counts as disturbed."""
ONCE = frozenset(
    {"round_trip_loaded", "cpu_bound", "payload", "memory", "round_trip_default", "backlog", "backlog_1m", "server"}
)
"""Measured once in a run, not in each repetition: they are long, or their numbers hardly move."""
BY_NAME = frozenset({"backlog_1m"})
"""Only measured when asked for by name."""


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What is to be measured. Empty: everything."""

    contenders: Collection[str] = ()
    workloads: Collection[str] = ()
    n: int
    repeat: int
    tries: int = 2
    """Of one measurement, while other programs disturb it."""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One measurement of the plan."""

    repetition: int
    workload: str
    contender: str


def run(names: Sequence[str], wish: Wish, results: Results, save: Callable[[Results], None]) -> None:
    """Measure what *wish* selects and what *results* do not hold yet, and *save* after each measurement."""
    environments = {name: Environment(name) for name in names}
    _describe(environments, wish, results)
    done = {(entry["repetition"], entry["workload"], entry["contender"]) for entry in results["runs"]}
    turns = [turn for turn in plan(results, wish) if (turn.repetition, turn.workload, turn.contender) not in done]
    started = time.monotonic()
    for number, turn in enumerate(turns, 1):
        print(f"{number}/{len(turns)} {turn.contender} {turn.workload} ...", end=" ", file=sys.stderr, flush=True)
        _measure(environments[turn.contender], turn, wish, results)
        save(results)
    print(f"{len(turns)} measurements in {(time.monotonic() - started) / 60:.1f} minutes", file=sys.stderr)


def new_results(wish: Wish) -> Results:
    return {
        "machine": machine(),
        "n": wish.n,
        "repeat": wish.repeat,
        "contenders": {},
        "versions": {},
        "skipped": {},
        "runs": [],
        "failures": [],
    }


def values_of(results: Results) -> dict[str, dict[str, list[float]]]:
    """Contender, measure: the numbers of all repetitions."""
    values: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for entry in results["runs"]:
        for measure, value in entry["numbers"].items():
            values[entry["contender"]][measure].append(value)
    return values


def medians_of(results: Results) -> dict[str, dict[str, float]]:
    return {
        name: {key: statistics.median(raw) for key, raw in measured.items()} for name, measured in values_of(results).items()
    }


def plan(results: Results, wish: Wish) -> Iterator[Turn]:
    """Each workload with all contenders that have it, one after another: they meet the same machine."""
    has = {
        name: [w for w in facts["workloads"] if w in wish.workloads or (not wish.workloads and w not in BY_NAME)]
        for name, facts in results["contenders"].items()
        if not wish.contenders or name in wish.contenders
    }
    order = dict.fromkeys(workload for workloads in has.values() for workload in workloads)
    for repetition in range(wish.repeat):
        for workload in order:
            if repetition and workload in ONCE:
                continue
            for name, workloads in has.items():
                if workload in workloads:
                    yield Turn(repetition=repetition, workload=workload, contender=name)


def _describe(environments: dict[str, Environment], wish: Wish, results: Results) -> None:
    """Make the environments, and note what contenders say of themselves, their versions, and who cannot take part."""
    unknown = set(wish.contenders) - set(environments)
    if unknown:
        raise SystemExit(f"no contender is called {', '.join(sorted(unknown))}: there are {', '.join(environments)}")
    Environment(SERVERS).prepare()
    results["versions"][SERVERS] = Environment(SERVERS).versions()
    for name, environment in environments.items():
        if wish.contenders and name not in wish.contenders:
            continue
        if reason := environment.missing():
            results["skipped"][name] = reason
            print(f"{name} is skipped: {reason}", file=sys.stderr)
            continue
        try:
            results["contenders"][name] = json.loads(_ask(environment, "list", 0))
        except subprocess.CalledProcessError as error:
            raise SystemExit(f"{name} cannot be used: {error}\n{error.stderr or ''}") from error
        results["skipped"].pop(name, None)
        results["versions"][name] = environment.versions()
    known = {workload for facts in results["contenders"].values() for workload in facts["workloads"]}
    if unknown := set(wish.workloads) - known:
        raise SystemExit(f"no workload is called {', '.join(sorted(unknown))}: there are {', '.join(sorted(known))}")


def _measure(environment: Environment, turn: Turn, wish: Wish, results: Results) -> None:
    """Measure, again if other programs disturbed it; the quietest of the tries counts."""
    tries: list[tuple[float, dict[str, float]]] = []
    started = time.monotonic()
    broker = results["contenders"][turn.contender]["about"]["broker"]
    while len(tries) < wish.tries and not (tries and tries[-1][0] < NOISE):
        others = OthersWatch()
        try:
            numbers = json.loads(_ask(environment, turn.workload, wish.n, broker))
        except (subprocess.SubprocessError, RuntimeError, ValueError) as error:
            text = error.stderr if isinstance(error, subprocess.CalledProcessError) else str(error)
            results["failures"].append({"contender": turn.contender, "workload": turn.workload, "error": text})
            print(f"failed:\n{text}", file=sys.stderr, flush=True)
            return
        tries.append((round(others.cores(), 2), numbers))
    cores, numbers = min(tries, key=lambda measured: measured[0])
    entry = {"repetition": turn.repetition, "contender": turn.contender, "workload": turn.workload, "numbers": numbers}
    took = round(time.monotonic() - started, 1)
    results["runs"].append({**entry, "others_cores": cores, "tries": len(tries), "seconds": took})
    shown = ", ".join(f"{measure} {value:,.4g}" for measure, value in numbers.items())
    print(f"{shown} (others: {cores} cores, {took} s)", file=sys.stderr, flush=True)


def _ask(environment: Environment, workload: str, n: int, broker: str = "") -> str:
    """The last line that one measurement prints."""
    (CACHE / "runs").mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=CACHE / "runs"))
    try:
        with server(broker, Environment(SERVERS).prepare(), folder) as running:
            variables = {**neutral(), **running.environment(), "BENCHMARK_FOLDER": str(folder), "PYTHONPATH": str(ROOT)}
            return _last_line(
                [environment.prepare(), "-m", "benchmarks.harness", environment.name, workload, str(n)], variables
            )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _last_line(command: list[str], variables: dict[str, str]) -> str:
    """Of what *command* prints; if we end early it gets SIGTERM first, and ends its workers."""
    folder, pipe = variables["BENCHMARK_FOLDER"], subprocess.PIPE
    with subprocess.Popen(command, cwd=folder, env=variables, text=True, stdout=pipe, stderr=pipe) as process:
        try:
            printed, complaint = process.communicate(timeout=_TIME_LIMIT)
        except BaseException:
            process.terminate()
            try:
                process.wait(_END_WAIT)
            except subprocess.TimeoutExpired:
                process.kill()
            raise
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, printed, complaint)
    return printed.splitlines()[-1]


def neutral() -> dict[str, str]:
    """The environment without what would change how contenders or Python behave."""
    dropped = ("CHICORY_", "PYTHON", "HUEY", "CELERY", "BENCHMARK_")
    return {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
