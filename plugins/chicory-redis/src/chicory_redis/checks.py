"""What ``chicory doctor`` finds out about a server."""

from __future__ import annotations

from contextlib import suppress
from importlib.util import find_spec
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, final

from chicory.errors import BackendNotConfiguredError, BrokerConnectionError
from chicory.plugin import Finding
from chicory_redis.backend import RedisBackend
from chicory_redis.broker import RedisBroker
from chicory_redis.server import Place, Server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chicory.plugin import App, QueueStats

__all__ = ["Checks"]

_OLDEST = (6, 2)
_SKEW = 2.0
_MANY = 100_000


@final
class Checks:
    """The checks for the servers of one app: of its broker, its backend, or both."""

    def __init__(self, app: App) -> None:
        self._clock = app.clock
        self._queues = app.config.worker.queues
        parts: list[object] = [app.broker_twin()]
        with suppress(BackendNotConfiguredError):
            parts.append(app.backend_twin())
        self._broker = next((part for part in parts if isinstance(part, RedisBroker)), None)
        self._places: dict[str, Place] = {}
        for part in parts:
            if isinstance(part, RedisBroker | RedisBackend):
                self._places.setdefault(part.place.host, part.place)

    async def __call__(self) -> list[Finding]:
        findings: list[Finding] = []
        if self._places and find_spec("hiredis") is None:
            what = "hiredis is not installed: answers of the server are parsed in Python"
            findings.append(Finding.warning(what, "pip install chicory-redis[fast]"))
        for place in self._places.values():
            findings += _on_the_way(place)
            findings += await self._ask(place)
        if self._broker is not None:
            findings += await self._lengths(self._broker)
        return findings

    async def _ask(self, place: Place) -> list[Finding]:
        server = Server(place, BrokerConnectionError, BrokerConnectionError)
        try:
            info = await server.ask("INFO")
            policy = await _setting(server, "maxmemory-policy")
            seconds, micro = await server.ask("TIME")
        finally:
            await server.close()
        skew = abs(int(seconds) + int(micro) / 1e6 - self._clock.now().timestamp())
        return [*_of_version(place, info), *_of_persistence(info, policy), *_of_clock(place, skew)]

    async def _lengths(self, broker: RedisBroker) -> list[Finding]:
        async with broker:
            lengths = [await broker.stats(queue) for queue in self._queues]
        return [finding for stats in lengths for finding in _of_length(stats)]


def _on_the_way(place: Place) -> Iterator[Finding]:
    if place.kind == "unix" or _is_near(place.options.get("host", "")):
        return
    if place.kind != "tls":
        what = f"{place.address} is on another host, and the connection is not encrypted"
        yield Finding.warning(what, "use rediss://, or a network that nobody else is in")
    if not place.options.get("password"):
        what = f"{place.address} is on another host, and is asked without a password"
        yield Finding.warning(what, "set one (requirepass, or ACL users)")


def _is_near(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def _setting(server: Server, name: str) -> str | None:
    """None if the server does not say."""
    try:
        answer: Any = await server.ask("CONFIG", "GET", name)
    except BrokerConnectionError:
        return None  # a managed server, or a user that may not
    values = list(answer.values()) if isinstance(answer, dict) else answer[1:]
    return values[0].decode() if values and isinstance(values[0], bytes) else (values[0] if values else None)


def _of_version(place: Place, info: dict[str, Any]) -> Iterator[Finding]:
    name, text = ("Valkey", info["valkey_version"]) if "valkey_version" in info else ("Redis", info["redis_version"])
    yield Finding.ok(f"{place.address} is {name} {text}")
    version = tuple(int(part) for part in str(info["redis_version"]).split(".")[:2])
    if version < _OLDEST:
        yield Finding.error(f"{name} {text} is older than 6.2, the first that can do what is needed", "use a newer server")


def _of_persistence(info: dict[str, Any], policy: str | None) -> Iterator[Finding]:
    if not info.get("aof_enabled"):
        yield Finding.warning(
            "the server keeps no append-only file: what it has accepted since its last snapshot is lost when it ends",
            "set appendonly yes, and appendfsync always where a second is too much to lose",
        )
    if policy is not None and policy != "noeviction":
        yield Finding.error(
            f"maxmemory-policy is {policy}: a server that is full removes messages and results",
            "set maxmemory-policy noeviction, so that it refuses new ones instead",
        )


def _of_clock(place: Place, skew: float) -> Iterator[Finding]:
    if skew > _SKEW:
        what = f"the clock of {place.address} and this host's differ by {skew:.0f} s"
        yield Finding.warning(what, "let both keep time: eta and countdown are counted on the server's clock")


def _of_length(stats: QueueStats) -> Iterator[Finding]:
    if stats.ready > _MANY:
        what = f"{stats.ready} messages wait in {stats.queue!r}, the first for {stats.oldest_seconds or 0:.0f} s, all in memory"
        yield Finding.warning(what, "start more workers, or purge what nobody needs any more")
