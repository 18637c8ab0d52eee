"""A worker's signs of life, in a file that another process reads: without the app, without the broker, and quickly."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import tempfile
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, final

import msgspec
from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "REWRITE_SECONDS",
    "STALE_SECONDS",
    "Sighting",
    "Vitals",
    "default_folder",
    "file_for",
    "find_files",
    "forget_gone",
    "host_and_port",
    "look_at",
    "own_folder",
    "write",
]

REWRITE_SECONDS = 2.0
"""How often a worker writes its file anew."""
STALE_SECONDS = 10.0
"""A file that is older tells nothing: its process is frozen, or the machine is."""
_PROCESS = uuid.uuid4().hex
"""This process, for sure: a number is given to another one after it, and in a container it is 1 each time."""
_PLACEHOLDER = "{pid}"


@final
class Vitals(Struct, frozen=True, kw_only=True):
    """What a worker knows about itself, as health probes show it. Holds no address and no argument."""

    worker_id: str
    hostname: str
    pid: int
    process: str = _PROCESS
    live: bool
    """Its loops turn."""
    ready: bool
    """It is live, connected, and takes tasks."""
    reasons: tuple[str, ...] = ()
    """Why it is not live, or not ready."""
    lag_seconds: float = 0.0
    """For how long the task loop has not turned."""


@final
class Sighting(Struct, frozen=True, kw_only=True):
    """What a state file says, and whether that can be believed."""

    file: str
    pid: int | None = None
    worker_id: str | None = None
    live: bool = False
    ready: bool = False
    reasons: tuple[str, ...] = ()
    lag_seconds: float = 0.0


def host_and_port(address: str) -> tuple[str, int]:
    """The two parts of ``host:port``.

    >>> host_and_port("[::1]:8081")
    ('::1', 8081)

    Raises:
        ValueError: it is not written so.
    """
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:  # noqa: PLR2004 - 16 bits
        raise ValueError("it must be written host:port, as 127.0.0.1:8081")
    return host, int(port)


# --- where the files are ---------------------------------------------------------------------------


def default_folder() -> Path:
    """The folder of this user's state files, below the directory for temporary files."""
    return Path(tempfile.gettempdir()) / f"chicory-{os.getuid()}"


def own_folder() -> Path:
    """That folder, made if need be, readable by its owner alone.

    Raises:
        OSError: it cannot be made, or it is somebody else's.
    """
    folder = default_folder()
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    _refuse_foreign(folder)
    return folder


def _refuse_foreign(folder: Path) -> None:
    """In a directory for everybody, somebody else may have made it first, or made it a link."""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(f"{folder} is not a directory of this user alone (0700)")


def file_for(worker_id: str, chosen: str | None) -> Path:
    """Where a worker of this process writes: as *chosen* (with ``{pid}`` filled in), else in the folder of this user.

    Raises:
        OSError: there is no place for it.
    """
    if chosen is not None:
        return Path(chosen.replace(_PLACEHOLDER, str(os.getpid()))).absolute()
    file = own_folder() / f"{os.getpid()}.json"
    found = _read(file)
    if found is None or found.process != _PROCESS or found.worker_id == worker_id:
        return file
    return file.with_name(f"{os.getpid()}-{worker_id.rpartition('-')[2]}.json")  # the second worker of one process


def find_files(*, pid: int | None = None, chosen: str | None = None) -> list[Path]:
    """The state files of workers on this host: all of this user's, those of process *pid*, or those at *chosen*.

    Raises:
        OSError: the folder is somebody else's.
    """
    if chosen is not None:
        return _files_like(Path(chosen), pid)
    folder = default_folder()
    if not folder.exists():
        return []
    _refuse_foreign(folder)
    files = sorted(folder.glob("*.json"))
    if pid is not None:
        return [file for file in files if file.stem.partition("-")[0] == str(pid)]
    here = socket.gethostname()
    return [file for file in files if (found := _read(file)) is None or found.hostname == here]


def _files_like(chosen: Path, pid: int | None) -> list[Path]:
    if _PLACEHOLDER not in chosen.name:
        return [chosen]
    return sorted(chosen.parent.glob(chosen.name.replace(_PLACEHOLDER, "*" if pid is None else str(pid))))


# --- writing, reading ------------------------------------------------------------------------------


def write(file: Path, vitals: Vitals) -> None:
    """Put *vitals* into *file* in one step: a reader sees the old ones or the new ones.

    Raises:
        OSError: it cannot be written.
    """
    made = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(msgspec.json.encode(vitals))
        made.replace(file)
    except OSError:
        with contextlib.suppress(OSError):
            made.unlink()
        raise


def forget_gone(folder: Path) -> None:
    """Remove the files of workers on this host whose process is gone: nobody else does, once they were killed."""
    here = socket.gethostname()
    for file in folder.glob("*.json"):
        found = _read(file)
        if found is not None and found.hostname == here and not _is_alive(found.pid):
            file.unlink(missing_ok=True)


def look_at(file: Path) -> Sighting:
    """What *file* says; not healthy if it cannot be read, is stale, or its process is gone."""
    vitals = _read(file)
    if vitals is None:
        why = "the state file cannot be read" if file.exists() else "there is no state file"
        return Sighting(file=str(file), reasons=(why,))
    doubts = tuple(_doubts(file, vitals))
    return Sighting(
        file=str(file),
        pid=vitals.pid,
        worker_id=vitals.worker_id,
        live=vitals.live and not doubts,
        ready=vitals.ready and not doubts,
        reasons=doubts or vitals.reasons,
        lag_seconds=vitals.lag_seconds,
    )


def _doubts(file: Path, vitals: Vitals) -> Iterator[str]:
    if vitals.hostname == socket.gethostname() and not _is_alive(vitals.pid):
        yield f"process {vitals.pid} is gone"
        return
    try:
        age = time.time() - file.stat().st_mtime
    except FileNotFoundError:
        yield "the worker has just ended"
        return
    if age > STALE_SECONDS:
        yield f"frozen: no sign of life for {age:.0f} s"


def _read(file: Path) -> Vitals | None:
    try:
        return msgspec.json.decode(file.read_bytes(), type=Vitals)
    except (OSError, msgspec.DecodeError):
        return None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's process
        return True
    return True
