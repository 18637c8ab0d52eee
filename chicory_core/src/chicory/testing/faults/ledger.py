"""A ledger outside of what is tested: what really happened, written down by whoever did it, in one file for all processes."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import final

import msgspec
from msgspec import Struct

__all__ = ["LEDGER_VARIABLE", "Fact", "Ledger"]

LEDGER_VARIABLE = "FAULTS_LEDGER"
"""Names the file to the worker processes."""


@final
class Fact(Struct, frozen=True, array_like=True):
    """One thing that happened. *at* is the monotonic clock in seconds, which all processes of one machine share."""

    kind: str
    task_id: str
    pid: int
    at: float
    retries: int = 0
    detail: str = ""


@final
class Ledger:
    """An append-only file of facts. Each is one write with O_APPEND: whole, in order, and there whoever is killed next."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    @classmethod
    def of_environment(cls) -> Ledger:
        """The ledger that ``FAULTS_LEDGER`` names, for a worker process."""
        return cls(Path(os.environ[LEDGER_VARIABLE]))

    def note(self, kind: str, task_id: str = "", *, retries: int = 0, detail: str = "", pid: int | None = None) -> None:
        """Write one fact of this process, or of *pid*."""
        fact = Fact(kind, task_id, pid or os.getpid(), time.monotonic(), retries, detail)
        os.write(self._descriptor, msgspec.json.encode(fact) + b"\n")

    def facts(self, *kinds: str) -> list[Fact]:
        """What was written so far, in order; of these *kinds*, or all."""
        whole, _, _ = self.path.read_bytes().rpartition(b"\n")  # the rest is being written at this moment
        lines = whole.splitlines()
        facts = (msgspec.json.decode(line, type=Fact) for line in lines)
        return [fact for fact in facts if not kinds or fact.kind in kinds]

    def close(self) -> None:
        """Let go of the file, which stays."""
        os.close(self._descriptor)
