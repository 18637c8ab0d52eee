"""A TCP proxy that misbehaves on request: between a client and a real server, both of which stay as they are."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from enum import StrEnum
from typing import TYPE_CHECKING, Self, final

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["ProxyMode", "TcpProxy"]

_CHUNK = 64 * 1024
_RESET = struct.pack("ii", 1, 0)


class ProxyMode(StrEnum):
    """What a `TcpProxy` does with connections and their bytes."""

    PASS = "pass"  # noqa: S105 - no password
    """Passes everything on."""
    REFUSE = "refuse"
    """Nobody listens: connections are reset, and new ones are refused."""
    RESET = "reset"
    """Connections are reset, and new ones as soon as they are made."""
    BLACKHOLE = "blackhole"
    """Connections stay open, and can be made, but every byte vanishes: half-open, as after a pulled cable."""
    ONE_WAY = "one_way"
    """The server hears the client, and its replies vanish."""
    LATENCY = "latency"
    """Each chunk is late by *seconds*, in either direction."""
    CUT_REPLY = "cut_reply"
    """*after* more bytes of replies the connection that carries them is reset; then everything passes again."""


class _Link:
    """A client's connection and the server's. Either end closes both."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.ends = (client, server)

    def reset(self) -> None:
        for end in self.ends:
            _reset(end)

    def close(self) -> None:
        for end in self.ends:
            end.close()


@final
class TcpProxy:
    """Listens on a free loopback port and passes on to *host*:*port*. Enter it, and connect to `port`.

    It runs on the event loop that entered it: a test that blocks the loop blocks the proxy. The bytes are not understood, so
    any protocol will do; for TLS, let the client expect the server's name.
    """

    def __init__(self, host: str, port: int) -> None:
        self._server_at = (host, port)
        self._listener: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self._mode, self._seconds, self._left = ProxyMode.PASS, 0.0, 0
        self.port = 0
        """Where it listens; the same for as long as it is entered, also while it refuses."""

    async def __aenter__(self) -> Self:
        await self._listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._deafen()
        self._reset_all()
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._links)

    async def set(self, mode: ProxyMode, *, seconds: float = 0.0, after: int = 0) -> None:
        """From now on behave like this. *seconds* are for ``LATENCY``, *after* counts bytes for ``CUT_REPLY``.

        Connections live through a change, unless the new mode resets them; what vanished stays gone.
        """
        self._mode, self._seconds, self._left = mode, seconds, after
        if mode in (ProxyMode.REFUSE, ProxyMode.RESET):
            self._reset_all()
        if mode is ProxyMode.REFUSE:
            self._deafen()
        elif self._listener is None:
            await self._listen()

    # --- connections -----------------------------------------------------------------------------

    async def _listen(self) -> None:
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._listener.sockets[0].getsockname()[1]

    def _deafen(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def _reset_all(self) -> None:
        for link in list(self._links):
            link.reset()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._mode in (ProxyMode.REFUSE, ProxyMode.RESET):
            _reset(writer)
            return
        try:
            from_server, to_server = await asyncio.open_connection(*self._server_at)
        except OSError:  # the server is away: so are we
            _reset(writer)
            return
        link = _Link(writer, to_server)
        self._links.add(link)
        both = [self._pump(link, reader, to_server, is_reply=False), self._pump(link, from_server, writer, is_reply=True)]
        pumps = [asyncio.ensure_future(pump) for pump in both]
        self._pumps.update(pumps)
        try:
            await asyncio.gather(*pumps, return_exceptions=True)  # cancelled at the end, which asyncio would complain of
        finally:
            self._links.discard(link)
            self._pumps.difference_update(pumps)

    async def _pump(self, link: _Link, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, is_reply: bool) -> None:
        with contextlib.suppress(ConnectionError):
            while chunk := await source.read(_CHUNK):
                await self._pass_on(link, chunk, sink, is_reply=is_reply)
        if self._mode is not ProxyMode.BLACKHOLE:  # there an end is not heard of either
            link.close()

    async def _pass_on(self, link: _Link, chunk: bytes, sink: asyncio.StreamWriter, *, is_reply: bool) -> None:
        mode = self._mode
        if mode is ProxyMode.BLACKHOLE or (mode is ProxyMode.ONE_WAY and is_reply):
            return
        if mode is ProxyMode.LATENCY:
            await asyncio.sleep(self._seconds)
        is_cut = mode is ProxyMode.CUT_REPLY and is_reply and len(chunk) > self._left
        if is_cut:
            chunk = chunk[: self._left]
        if is_reply:
            self._left -= len(chunk)
        sink.write(chunk)
        await sink.drain()
        if is_cut:
            self._mode = ProxyMode.PASS
            link.reset()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST instead of FIN, and without what is still to be sent."""
    connection = writer.get_extra_info("socket")
    if connection is not None and connection.fileno() >= 0:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
