"""How long it takes to import chicory and to run its smallest command: fresh interpreters each time."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from benchmarks.workloads import Numbers

_TIMES = 10
_IMPORT = """
import time, pydantic_settings
before = time.perf_counter()
from chicory import Chicory, Worker, WorkerConfig
print(time.perf_counter() - before)
"""


def times(command: str) -> Numbers:
    """Milliseconds that the imports take beyond pydantic_settings, and seconds of ``--help`` of *command*."""
    return {
        "import": statistics.median(_import_seconds() for _ in range(_TIMES)) * 1000,
        "help": statistics.median(_help_seconds(command) for _ in range(_TIMES)),
    }


def _import_seconds() -> float:
    return float(subprocess.run([sys.executable, "-c", _IMPORT], capture_output=True, check=True).stdout)


def _help_seconds(command: str) -> float:
    started = time.perf_counter()
    subprocess.run([command, "--help"], capture_output=True, check=True)
    return time.perf_counter() - started
