"""One server or cluster: where it is, how it is asked, and what its errors mean."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import contextmanager
from random import Random
from typing import TYPE_CHECKING, Any, Self, final

import msgspec
from msgspec import Struct, field

from chicory_nats.names import Names, seconds_of
from chicory_nats.wire import ConnectionLost, NotPermitted, Wire, status_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from nats.aio.client import Server as Known

    from chicory_nats.wire import Answer, Pull, Request

__all__ = ["OLDEST", "Fault", "Missing", "Place", "Server", "check", "fault_of", "sequence_in"]

OLDEST = (2, 12)
"""The first version that holds messages back until they are due."""
_WINDOW = 1000
"""Requests under way at once: more than that and a stream refuses some."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 5.0
_PING = 10
_FULL = frozenset({10002, 10023, 10028, 10047, 10077})
"""Limits of account, server, memory, disk, and stream."""
_TOO_LARGE = 10054
_SAME_CLOCK = 0.05
"""Seconds by which two clocks may seem to differ only because the answer took its time."""


class Missing(Exception):  # noqa: N818 - it names what is found
    """The stream or consumer is not there."""


class Fault(Exception):  # noqa: N818 - the word is the server's: it answered with an error
    """What the server answers in place of what was asked for."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(code, text)
        self.code, self.text = code, text

    def __str__(self) -> str:
        return f"{self.text} ({self.code})" if self.code else self.text

    @property
    def means_full(self) -> bool:
        return self.code in _FULL

    @property
    def means_too_large(self) -> bool:
        return self.code == _TOO_LARGE


class _Error(Struct):
    code: int = 0
    err_code: int = 0
    description: str = ""


class _Reply(Struct):
    error: _Error | None = None
    seq: int = 0


_log = logging.getLogger("chicory.nats")
_reply = msgspec.json.Decoder(_Reply).decode
_any = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


@final
class Place(Struct, frozen=True, kw_only=True):
    """Where servers are, and how to talk to them. *options* are those of nats-py's ``connect``."""

    servers: tuple[str, ...]
    """URLs without users or passwords."""
    address: str
    """For people."""
    names: Names = Names("chicory")
    replicas: int = 1
    timeout: float = 5.0
    options: dict[str, Any] = field(default_factory=dict)
    make_tls: Callable[[], Any] | None = None
    """Makes the context of encrypted connections, for each event loop's own."""
    monitor_url: str | None = None


@final
class Server:
    """An opened connection to one place, for one event loop; while it is lost, calls wait for it as long as for an answer."""

    def __init__(self, place: Place, away: Callable[[str, str], Exception], full: Callable[[str, str], Exception]) -> None:
        self.place = place
        self._away, self._full = away, full
        self._wire: Wire | None = None
        self._opening = asyncio.Lock()
        self._is_back = asyncio.Event()
        self._rng = Random()
        self._pause = _FIRST_PAUSE
        self._is_closing = False
        self._skew = 0.0
        self.lost_at = float("-inf")
        """When the connection was lost last, on the server's clock."""
        self.on_loss: list[Callable[[], object]] = []
        """Called when the connection is lost."""

    async def open(self) -> Self:
        """Connect, so that a server that is not there, or is too old, is noticed at once. Leaves nothing open if it fails."""
        try:
            with self.translated():
                _check_version(await self.look())
                await self.request("INFO")
        except BaseException:
            await self.close()
            raise
        return self

    async def look(self) -> tuple[int, ...]:
        """Connect to whatever there is; its version.

        Raises:
            ConnectionLost: there is nothing.
        """
        return (await self._connect()).version

    async def close(self) -> None:
        self._is_closing = True
        if self._wire is not None:
            await self._wire.close()

    async def _connect(self) -> Wire:
        self._pause = _FIRST_PAUSE
        wire = Wire(self._changed)
        place = self.place
        options = dict(place.options)
        if place.make_tls is not None:
            options["tls"] = place.make_tls()
        try:
            async with asyncio.timeout(place.timeout):
                await wire.begin(
                    list(place.servers),
                    connect_timeout=place.timeout,
                    ping_interval=_PING,
                    reconnect_time_wait=0,
                    reconnect_to_server_handler=self._choose,
                    **options,
                )
        except TimeoutError as error:
            raise ConnectionLost(f"no connection within {place.timeout:g} s") from error
        self._wire = wire
        self._is_back.set()
        return wire

    def _choose(self, servers: list[Known], _info: Mapping[str, Any]) -> tuple[Known, float]:
        """Where to try next, and in how many seconds: jittered, and longer each time."""
        pause, self._pause = self._pause, min(self._pause * 1.5, _LONGEST_PAUSE)
        return self._rng.choice(servers), pause * self._rng.uniform(0.5, 1.0)

    def _changed(self, is_there: bool) -> None:  # noqa: FBT001 - it is what is told
        if is_there:
            self._pause = _FIRST_PAUSE
            self._is_back.set()
            _log.info("connected to %s again", self.place.address)
            return
        self._is_back.clear()
        self.lost_at = self.now()
        for tell in self.on_loss:
            tell()
        if not self._is_closing:
            _log.warning("the connection to %s is lost: it is tried anew until it is back", self.place.address)

    @property
    def is_connected(self) -> bool:
        return self._wire is not None and self._wire.is_connected

    @property
    def max_payload(self) -> int:
        """The largest message that the server takes, with its headers."""
        return self._wire.max_payload if self._wire is not None else 0

    async def wire(self) -> Wire:
        """The connection, once it is there.

        Raises:
            ConnectionLost: it is not there in time.
        """
        wire = self._wire
        if wire is not None and wire.is_connected:
            return wire
        if wire is not None and wire.is_closed and not self._is_closing:  # the server did not let it in again
            async with self._opening:
                return await self._connect() if self._wire is wire else await self.wire()
        try:
            async with asyncio.timeout(self.place.timeout):
                while wire is None or not wire.is_connected:
                    self._is_back.clear()
                    await self._is_back.wait()
        except TimeoutError as error:
            last = f": {wire.attempts[-1]}" if wire is not None and wire.attempts else ""
            raise ConnectionLost(f"the connection is lost{last}") from error
        return wire

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Errors of the connection and of the server as those of the contract."""
        try:
            yield
        except ConnectionLost as error:
            raise self._away(self.place.address, str(error)) from error
        except NotPermitted as error:
            raise self._away(self.place.address, f"the user has no permission to {error}") from error
        except Missing as error:
            raise self._away(self.place.address, f"{error} is not there") from error
        except Fault as error:
            kind = self._full if error.means_full else self._away
            raise kind(self.place.address, str(error)) from error

    async def ask(self, requests: Sequence[Request], unanswered: Answer | None = None) -> list[Answer]:
        """The answers to *requests*, in order; `Missing` where nobody answers is for the caller to find (see `check`).

        *unanswered* is as in `Wire.ask`.
        """
        if not requests:
            return []
        if len(requests) <= _WINDOW:
            return await (await self.wire()).ask(requests, self.place.timeout, unanswered)
        answers: list[Answer] = []
        for start in range(0, len(requests), _WINDOW):
            answers += await (await self.wire()).ask(requests[start : start + _WINDOW], self.place.timeout, unanswered)
        return answers

    async def request(self, subject: str, body: Any = None) -> Any:
        """What the API of JetStream answers.

        Raises:
            Missing: there is no such stream or consumer, or no JetStream at all.
            Fault: another error.
        """
        data = b"" if body is None else _encode(body)
        ((headers, answer),) = await self.ask([(f"$JS.API.{subject}", b"", data)])
        check(headers, answer, subject)
        return _any(answer)

    async def await_pull(self, pull: Pull, seconds: float = 0.0) -> None:
        """Return when *pull* is answered, in *seconds* and the time that an answer takes.

        Raises:
            ConnectionLost: it is not.
        """
        try:
            async with asyncio.timeout(seconds + self.place.timeout):
                await asyncio.shield(pull.done)
        except TimeoutError as error:
            raise ConnectionLost(f"no answer within {seconds + self.place.timeout:g} s") from error

    # --- the server's clock ------------------------------------------------------------------------

    async def set_clock(self, stream: str) -> None:
        """Learn what time it is there."""
        begin = time.time()
        there = (await self.request(f"STREAM.INFO.{stream}"))["ts"]
        end = time.time()
        skew = seconds_of(there) - (begin + end) / 2
        self._skew = skew if abs(skew) > _SAME_CLOCK + (end - begin) else 0.0

    @property
    def skew(self) -> float:
        """Seconds by which the server's clock is ahead of this host's."""
        return self._skew

    def now(self) -> float:
        """The time there."""
        return time.time() + self._skew


def _check_version(version: tuple[int, ...]) -> None:
    if version < OLDEST:
        text = ".".join(map(str, version))
        raise Fault(0, f"it is version {text}, and what is delayed needs message schedules, which are there from 2.12 on")


def check(headers: bytes, answer: bytes, about: str) -> None:
    """Raise what an answer means, if it is none of those that were hoped for."""
    if headers and (code := status_of(headers)) in (503, 404):
        raise Missing(about if code == 503 else f"{about} (not found)")  # noqa: PLR2004 - as the server says it
    if b'"error"' in answer and (fault := fault_of(answer)) is not None:
        raise fault


def fault_of(answer: bytes) -> Exception | None:
    """The error that is in an answer; None if there is none."""
    error = _reply(answer).error
    if error is None:
        return None
    if error.code == 404:  # noqa: PLR2004 - as the server says it
        return Missing(error.description)
    return Fault(error.err_code, error.description)


def sequence_in(answer: bytes) -> int:
    """Where a stream has put what it has taken."""
    return _reply(answer).seq
