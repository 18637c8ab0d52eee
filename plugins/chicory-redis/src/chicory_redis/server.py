"""One server: where it is, how it is asked, and what its errors mean."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Self, final

from msgspec import Struct, field
from redis import exceptions
from redis.asyncio import Connection, ConnectionPool, Redis, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff

from chicory_redis.lines import Lines, head_of, packed
from chicory_redis.rows import pack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from chicory_redis.rows import Cell

__all__ = ["Place", "Server"]

Arg = bytes | str | int | float
"""What an argument of a command may be."""

_AWAY = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.BusyLoadingError,
    exceptions.ReadOnlyError,
    exceptions.ClusterDownError,
    exceptions.TryAgainError,
    exceptions.MasterDownError,
    OSError,
)
"""The server is away, starts, or is no master at the moment: it may be back."""
_CONNECTIONS = 8
"""Of many calls at once most wait for a connection: more would not make the server faster."""
_MOST_HEADS = 1000
_FLAGS_SINCE = 7
"""The version that knows flags of scripts."""
_FLAG = "#!lua flags=allow-oom\n"
_FIRST_WRITE = "redis.call('DEL', ARGV[1] .. ':nothing')\n"
"""Before flags, a full server lets a script go on whose first write needs no room."""
_CLASSES = {"tcp": Connection, "tls": SSLConnection, "unix": UnixDomainSocketConnection}


@final
class Place(Struct, frozen=True, kw_only=True):
    """Where a server is, and how to talk to it. *options* are those of redis-py's connections."""

    kind: str
    """``tcp``, ``tls`` or ``unix``."""
    address: str
    """For people: without password."""
    host: str
    """Host and port, or the path of the socket: what makes two places one server."""
    db: int = 0
    prefix: str = "chicory"
    group: str = "chicory"
    timeout: float = 5.0
    options: dict[str, Any] = field(default_factory=dict)


@final
class Server:
    """An opened connection to one place, for one event loop.

    Commands that block have a connection of their own, so that nothing waits behind them.
    """

    def __init__(self, place: Place, away: Callable[[str, str], Exception], full: Callable[[str, str], Exception]) -> None:
        self.place = place
        self._away, self._full = away, full
        self.knows_flags = False
        kind, options = _CLASSES[place.kind], self._options()
        retry = Retry(ExponentialWithJitterBackoff(cap=0.5, base=0.01), 2)
        self._commands = Redis(connection_pool=ConnectionPool(connection_class=kind, **options, retry=retry))
        once = Retry(ExponentialWithJitterBackoff(), 0)
        self.blocking = Redis(connection_pool=ConnectionPool(connection_class=kind, **options, retry=once))
        self._lines = Lines(lambda: kind(**options, retry=once))
        self._heads: dict[tuple[Arg, ...], bytes] = {}
        """How calls of scripts begin, by script, keys and first arguments."""
        self._slots = asyncio.Semaphore(_CONNECTIONS)

    def _options(self) -> dict[str, Any]:
        given = {"db": self.place.db, "socket_connect_timeout": self.place.timeout, "socket_keepalive": True}
        if self.place.kind == "unix":
            del given["socket_keepalive"]
        # With a socket_timeout the client library would lose cancellations before Python 3.12, by asyncio.wait_for.
        return {"socket_timeout": None, **given, **self.place.options}

    async def open(self) -> Self:
        """Connect, so that a server that is not there is noticed at once, and learn what it can.

        Leaves nothing open if it fails.
        """
        try:
            info = await self.ask("INFO", "server")
        except BaseException:
            await self.close()
            raise
        self.knows_flags = int(str(info["redis_version"]).split(".", 1)[0]) >= _FLAGS_SINCE
        return self

    async def close(self) -> None:
        """Close all connections, whatever the other end says to it: over TLS it may take its time, or say nothing."""
        closing = (
            self._lines.close(),
            self._commands.aclose(close_connection_pool=True),
            self.blocking.aclose(close_connection_pool=True),
        )
        for failure in await asyncio.gather(*closing, return_exceptions=True):
            if isinstance(failure, BaseException) and not isinstance(failure, _AWAY):
                raise failure

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Errors of the client library as those of the contract."""
        try:
            yield
        except exceptions.OutOfMemoryError as error:
            raise self._full(self.place.address, str(error)) from error
        except exceptions.ResponseError as error:
            if "OOM command not allowed" in str(error):
                raise self._full(self.place.address, str(error)) from error
            raise self._away(self.place.address, str(error)) from error
        except _AWAY as error:
            raise self._away(self.place.address, f"{type(error).__name__}: {error}") from error

    async def ask(self, *command: Arg) -> Any:
        """The answer to one command."""
        with self.translated():
            async with self._slots, asyncio.timeout(self.place.timeout):
                return await self._commands.execute_command(*command)  # type: ignore[no-untyped-call] # of the client library

    async def run(self, script: str, head: Sequence[str | float], rows: Sequence[Cell] = (), keys: Sequence[str] = ()) -> Any:
        """What *script* returns for these arguments; its text goes along only where the server does not know it."""
        last = pack(rows)
        with self.translated():
            async with self._slots, asyncio.timeout(self.place.timeout):
                try:
                    return await self._lines.ask(packed(self._head(script, head, keys), last))
                except exceptions.NoScriptError:
                    text, _ = load(script, knows_flags=self.knows_flags)
                    whole = head_of("EVAL", text, len(keys), *keys, *head, more=1)
                    return await self._lines.ask(packed(whole, last))

    def _head(self, script: str, head: Sequence[str | float], keys: Sequence[str]) -> bytes:
        known = self._heads.get(key := (script, *keys, *head))
        if known is None:
            if len(self._heads) >= _MOST_HEADS:
                self._heads.clear()
            _, digest = load(script, knows_flags=self.knows_flags)
            known = self._heads[key] = head_of("EVALSHA", digest, len(keys), *keys, *head, more=1)
        return known

    async def read_new(self, group: str, consumer: str, streams: Mapping[str, str], limit: int, seconds: float) -> Any:
        """Wait on streams for what is new, as ``XREADGROUP`` does: per stream, entries with their fields."""
        milliseconds = max(1, int(seconds * 1000))
        command = ["XREADGROUP", "GROUP", group, consumer, "COUNT", limit, "BLOCK", milliseconds, "STREAMS"]
        with self.translated():
            async with asyncio.timeout(seconds + self.place.timeout):
                return await self.blocking.execute_command(*command, *streams, *streams.values())  # type: ignore[no-untyped-call]


@cache
def load(script: str, *, knows_flags: bool) -> tuple[str, str]:
    """The text of a script, and its SHA-1 as the server calculates it. All but ``publish`` run on a full server too."""
    folder = files("chicory_redis") / "scripts"
    leave = "" if script == "publish" else _FLAG if knows_flags else _FIRST_WRITE
    text = leave + (folder / "common.lua").read_text() + (folder / f"{script}.lua").read_text()
    return text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
