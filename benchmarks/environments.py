"""Where contenders run: a virtual environment each, and the facts about this machine."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import resource
import shutil
import sqlite3
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".benchmarks"
SERVERS = "servers"
_CONTENDERS = Path(__file__).with_name("contenders")


def contenders() -> list[str]:
    """The names of all contenders, chicory first: it takes its turn before its peers and the floors."""
    names = sorted(path.stem for path in _CONTENDERS.glob("*.txt"))
    return sorted(names, key=lambda name: not name.startswith("chicory"))


class Environment:
    """The virtual environment of one contender, made when first needed and when its requirements have changed.

    `SERVERS` is one too: servers, plots and the sampler come from it.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._folder = CACHE / "envs" / name
        self._requirements = (_CONTENDERS if name != SERVERS else _CONTENDERS.parent) / f"{name}.txt"

    def missing(self) -> str | None:
        """Why it cannot be made: a part of this repository that it needs is not there."""
        wanted = re.findall(r"^-e (\S+?)(?:\[|$)", self._requirements.read_text(), re.MULTILINE)
        absent = [path for path in wanted if not (ROOT / path / "pyproject.toml").exists()]
        return f"there is no {', '.join(absent)} in this repository" if absent else None

    def prepare(self) -> str:
        """Make it if need be; the path of its interpreter."""
        python = str(self._folder / "bin" / "python")
        mark = self._folder / "made-from"
        wanted = hashlib.sha256(self._requirements.read_bytes() + sys.version.encode()).hexdigest()
        if mark.exists() and mark.read_text() == wanted:
            return python
        _ignore_in_git(CACHE)
        print(f"making the environment of {self.name} ...", file=sys.stderr, flush=True)
        for command in self._commands(python):
            subprocess.run(command, cwd=ROOT, check=True)
        mark.write_text(wanted)
        return python

    def _commands(self, python: str) -> list[list[str]]:
        """By uv where it is installed, which is ten times faster; else by Python's own means."""
        requirements = ["-r", str(self._requirements)]
        beside = Path(sys.executable).with_name("uv")
        if uv := str(beside) if beside.exists() else shutil.which("uv"):
            made = [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(self._folder)]
            return [made, [uv, "pip", "install", "--quiet", "--python", python, *requirements]]
        made = [sys.executable, "-m", "venv", "--clear", str(self._folder)]
        return [made, [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements]]

    def versions(self) -> dict[str, str]:
        """Every distribution in it."""
        code = "import json, importlib.metadata as m; print(json.dumps({d.name: d.version for d in m.distributions()}))"
        found: dict[str, str] = json.loads(subprocess.run([self.prepare(), "-c", code], capture_output=True, check=True).stdout)
        return {name: version for name, version in sorted(found.items()) if name not in ("pip", "setuptools")}


def _ignore_in_git(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    (folder / ".gitignore").write_text("*\n")


def machine() -> dict[str, Any]:
    """What the numbers depend on."""
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False)
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit.stdout.strip(),
        "cpus": os.cpu_count(),
        "processor": _processor(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "kernel": platform.release(),
        "system": platform.platform(),
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


class OthersWatch:
    """How many cores other programs took, on average, since this was made: to tell a noisy measurement."""

    def __init__(self) -> None:
        self._since, self._busy, self._ours = time.monotonic(), _busy_seconds(), _our_seconds()

    def cores(self) -> float:
        others = (_busy_seconds() - self._busy) - (_our_seconds() - self._ours)
        return max(0.0, others / (time.monotonic() - self._since))


def _busy_seconds() -> float:
    """CPU seconds that all programs, or the host of this virtual machine, have taken since its start (proc(5))."""
    ticks = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


def _our_seconds() -> float:
    """CPU seconds of this process and of its children that have ended."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(used.ru_utime + used.ru_stime for used in map(resource.getrusage, kinds))
