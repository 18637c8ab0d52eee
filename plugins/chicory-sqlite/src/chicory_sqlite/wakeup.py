"""Waking other processes within a millisecond: a datagram socket per interested process, beside the database file.

Whoever commits something sends a few bytes to every socket in the directory ``<file>.wake``. Nothing depends on a datagram
arriving: it only ends a wait early. Where sockets cannot be used, waits are short instead (see `Doorbell.patience`).
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import sys
import time
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

__all__ = ["RESULTS", "WORK", "Doorbell"]

WORK, RESULTS = "w", "r"
"""What a socket is rung for: messages in queues, or results."""
_PATIENT, _IMPATIENT = 1.0, 0.02
_MOST_BYTES = 32 * 1024
_RACY_NS = 20_000_000
"""A directory changed this shortly before it was read may change again without its time stamp telling."""


@final
class Doorbell:
    """Rings the sockets of all processes that use one file, and has up to two of its own. Used by one thread."""

    def __init__(self, database: Path) -> None:
        self._folder = database.with_name(f"{database.name}.wake")
        self._fd = -1
        self._own: dict[str, tuple[str, socket.socket]] = {}
        self._sender: socket.socket | None = None
        self._listed: tuple[int, tuple[str, ...]] = (0, ())
        self.patience = _IMPATIENT
        """Seconds after which to look again without having been rung."""

    def open(self) -> None:
        """Make the directory, private to this user; without it this process neither rings nor is rung."""
        with contextlib.suppress(FileExistsError):
            self._folder.mkdir(mode=0o700)
        status = self._folder.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
            return
        self._fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        self._sender = _datagram_socket()
        self.patience = _PATIENT

    def close(self) -> None:
        for name, own in self._own.values():
            own.close()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self._fd)
        self._own.clear()
        if self._sender is not None:
            self._sender.close()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def listen(self, kind: str) -> socket.socket | None:
        """The socket that is rung for *kind*, made when first asked for; None where there can be none."""
        if kind in self._own:
            return self._own[kind][1]
        if self._fd < 0:
            return None
        name = f"{kind}-{os.getpid()}-{os.urandom(4).hex()}"
        own = _datagram_socket()
        try:
            own.bind(self._path(name))
        except OSError:  # a path longer than the 107 bytes that such an address may have, where there is no /proc
            own.close()
            self.patience = _IMPATIENT
            return None
        self._own[kind] = (name, own)
        return own

    def heard(self, kind: str) -> set[str]:
        """The words that were rung since the last call."""
        words: set[str] = set()
        own = self.listen(kind)
        while own is not None:
            try:
                words.update(own.recv(2 * _MOST_BYTES).decode().split())
            except BlockingIOError:
                break
        return words

    def ring(self, kind: str, words: Iterable[str]) -> None:
        """Tell every other process that listens for *kind*. Whom it does not reach finds out when its patience ends."""
        if self._sender is None:
            return
        mine = self._own[kind][0] if kind in self._own else None
        names = [name for name in self._names() if name.startswith(kind) and name != mine]
        if not names:
            return
        for data in _packed(words):
            for name in names:
                self._send(self._sender, data, name)

    def _send(self, sender: socket.socket, data: bytes, name: str) -> None:
        try:
            sender.sendto(data, self._path(name))
        except OSError as error:
            if error.errno == errno.ECONNREFUSED:  # its process is gone, and left the file behind
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=self._fd)

    def _names(self) -> tuple[str, ...]:
        changed = os.fstat(self._fd).st_mtime_ns
        if changed != self._listed[0]:
            names = tuple(os.listdir(self._fd))  # noqa: PTH208 - by descriptor, which a Path cannot
            is_settled = time.time_ns() - changed > _RACY_NS
            self._listed = (changed if is_settled else 0, names)
        return self._listed[1]

    def _path(self, name: str) -> str:
        # By the descriptor of the directory the address is short however deep the file lies.
        return f"/proc/self/fd/{self._fd}/{name}" if sys.platform == "linux" else str(self._folder / name)


def _datagram_socket() -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made.setblocking(False)
    return made


def _packed(words: Iterable[str]) -> Iterator[bytes]:
    line: list[str] = []
    size = 0
    for word in words:
        if size + len(word) >= _MOST_BYTES:
            yield " ".join(line).encode()
            line, size = [], 0
        line.append(word)
        size += len(word) + 1
    if line:
        yield " ".join(line).encode()
