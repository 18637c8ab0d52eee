"""Runs the measurements: contenders take turns, each measurement has fresh processes and an empty directory."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.environments import CACHE, ROOT, Environment, OthersWatch, machine

Results = dict[str, Any]
_TIME_LIMIT = 600.0
_TRIES = 3
NOISE = 0.2
"""Cores taken by other programs from which on a measurement counts as disturbed."""


def run(contenders: Sequence[str], *, only: set[str], n: int, repeat: int) -> Results:
    """Measure everything that *only* (names of contenders or workloads; empty: all) selects."""
    environments = {name: Environment(name) for name in contenders}
    plan = _plan(environments, only)
    results: Results = {
        "machine": machine(),
        "n": n,
        "versions": {name: environments[name].versions() for name in plan},
        "values": {name: defaultdict(list) for name in plan},
        "runs": [],
        "failures": [],
    }
    for repetition in range(repeat):
        for workload, name in _in_turns(plan):
            print(f"{repetition + 1}/{repeat} {name} {workload} ...", end=" ", file=sys.stderr, flush=True)
            _measure(environments[name], workload, n, results)
    return results


def write(results: Results, path: Path | None) -> bytes:
    """*results* as JSON, in *path* too if there is one."""
    text = json.dumps(results, indent=1).encode() + b"\n"
    if path is not None:
        path.write_bytes(text)
    return text


def _plan(environments: dict[str, Environment], only: set[str]) -> dict[str, list[str]]:
    """The workloads of each contender."""
    every = {name: json.loads(_ask(environment, "list", 0)) for name, environment in environments.items()}
    known = set(every).union(*every.values())
    if only - known:
        raise SystemExit(f"nothing is called {', '.join(sorted(only - known))}: there are {', '.join(sorted(known))}")
    plan = {
        name: [workload for workload in workloads if not only or name in only or workload in only]
        for name, workloads in every.items()
    }
    return {name: workloads for name, workloads in plan.items() if workloads}


def _in_turns(plan: dict[str, list[str]]) -> Iterator[tuple[str, str]]:
    """Each workload with all contenders that have it, one after another: they meet the same machine."""
    for workload in dict.fromkeys(workload for workloads in plan.values() for workload in workloads):
        for name, workloads in plan.items():
            if workload in workloads:
                yield workload, name


def _measure(environment: Environment, workload: str, n: int, results: Results) -> None:
    """Measure, again if other programs disturbed it; the quietest of the tries counts."""
    tries: list[tuple[float, dict[str, float]]] = []
    while len(tries) < _TRIES and not (tries and tries[-1][0] < NOISE):
        others = OthersWatch()
        try:
            numbers = json.loads(_ask(environment, workload, n))
        except (subprocess.SubprocessError, ValueError) as error:
            text = error.stderr if isinstance(error, subprocess.CalledProcessError) else str(error)
            results["failures"].append({"contender": environment.name, "workload": workload, "error": text})
            print(f"failed:\n{text}", file=sys.stderr, flush=True)
            return
        tries.append((round(others.cores(), 2), numbers))
    cores, numbers = min(tries, key=lambda measured: measured[0])
    results["runs"].append({"contender": environment.name, "workload": workload, "others_cores": cores, "tries": tries})
    for measure, value in numbers.items():
        results["values"][environment.name][measure].append(value)
    shown = ", ".join(f"{measure} {value:,.4g}" for measure, value in numbers.items())
    print(f"{shown} (others: {cores} cores)", file=sys.stderr, flush=True)


def _ask(environment: Environment, workload: str, n: int) -> str:
    """The last line that one measurement prints."""
    (CACHE / "runs").mkdir(parents=True, exist_ok=True)
    folder = tempfile.mkdtemp(dir=CACHE / "runs")
    try:
        process = subprocess.run(
            [environment.prepare(), "-m", "benchmarks.harness", environment.name, workload, str(n)],
            cwd=folder,
            env={**_neutral(), "BENCHMARK_FOLDER": folder, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=_TIME_LIMIT,
            check=True,
        )
    finally:
        shutil.rmtree(folder)
    return process.stdout.splitlines()[-1]


def _neutral() -> dict[str, str]:
    """The environment without what would change how contenders or Python behave."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("CHICORY_", "PYTHON", "HUEY"))}
