"""What ``chicory doctor`` finds out about a server."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, final
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

from chicory.errors import BackendNotConfiguredError, BrokerConnectionError
from chicory.plugin import Finding
from chicory_nats.backend import NatsBackend
from chicory_nats.broker import NatsBroker
from chicory_nats.server import OLDEST, Fault, Missing, Place, Server
from chicory_nats.wire import NotPermitted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chicory.plugin import App, QueueStats

__all__ = ["Checks"]

_SKEW = 2.0
_MANY = 1_000_000
_NEARLY = 0.8
_SECRET = frozenset({"password", "token", "user_credentials", "nkeys_seed"})
_SAFE_REPLICAS = 3
_BILLION = 1_000_000_000
_WITHIN = 5.0


@final
class Checks:
    """The checks for the servers of one app: of its broker, its backend, or both."""

    def __init__(self, app: App) -> None:
        self._queues = app.config.worker.queues
        self._largest = app.config.max_message_bytes
        parts: list[object] = [app.broker_twin()]
        with suppress(BackendNotConfiguredError):
            parts.append(app.backend_twin())
        self._broker = next((part for part in parts if isinstance(part, NatsBroker)), None)
        self._places: dict[str, Place] = {}
        for part in parts:
            if isinstance(part, NatsBroker | NatsBackend):
                self._places.setdefault(part.place.address, part.place)

    async def __call__(self) -> list[Finding]:
        findings: list[Finding] = []
        for place in self._places.values():
            findings += _on_the_way(place)
            findings += await self._ask(place)
        if self._broker is not None and not any(finding.level.value == "error" for finding in findings):
            findings += await self._look(NatsBroker(self._broker.place))
        return findings

    async def _ask(self, place: Place) -> list[Finding]:
        server = Server(place, BrokerConnectionError, BrokerConnectionError)
        try:
            with server.translated():
                version = await server.look()
                found = [*_of_version(place, version), *_of_payload(server.max_payload, self._largest)]
                try:
                    found += _of_account(await server.request("INFO"))
                except Missing:
                    found.append(Finding.error("JetStream is off, for the server or for this account", "start it with -js"))
                except (NotPermitted, Fault) as error:
                    found.append(Finding.error(f"JetStream cannot be asked: {error}", "see the permissions that it needs"))
        finally:
            await server.close()
        return [*found, *await asyncio.to_thread(_of_disk, place)]

    async def _look(self, broker: NatsBroker) -> list[Finding]:
        """What streams and queues say."""
        async with broker:
            with broker.server.translated():
                info = await broker.server.request(f"STREAM.INFO.{broker.place.names.stream}")
            lengths = [await broker.stats(queue) for queue in self._queues]
            skew = broker.server.skew
        findings = [*_of_stream(info, broker.place), *_of_clock(broker.place, abs(skew))]
        return findings + [finding for stats in lengths for finding in _of_length(stats)]


def _on_the_way(place: Place) -> Iterator[Finding]:
    if all(_is_near(urlsplit(url).hostname or "") for url in place.servers):
        return
    if place.make_tls is None:
        what = f"{place.address} is on another host, and the connection is not encrypted"
        yield Finding.warning(what, "use tls://, or a network that nobody else is in")
    if not _SECRET & place.options.keys():
        what = f"{place.address} is on another host, and is asked without a password, token or key"
        yield Finding.warning(what, "give each user a password, an nkey or a creds file")


def _is_near(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _of_version(place: Place, version: tuple[int, ...]) -> Iterator[Finding]:
    text = ".".join(map(str, version))
    yield Finding.ok(f"{place.address} is NATS {text}")
    if version < OLDEST:
        yield Finding.error(f"NATS {text} is older than 2.12, the first that holds messages back", "use a newer server")


def _of_payload(allowed: int, largest: int) -> Iterator[Finding]:
    if allowed < largest:
        what = f"the server takes messages of {allowed} bytes, and max_message_bytes is {largest}"
        yield Finding.warning(what, "raise max_payload there, or lower max_message_bytes here")


def _of_account(info: dict[str, Any]) -> Iterator[Finding]:
    """Storage and streams, as far as the account has a limit."""
    limits = info.get("limits") or {}
    for used, limit, name in (
        (info.get("storage", 0), limits.get("max_storage", -1), "bytes on disk"),
        (info.get("streams", 0), limits.get("max_streams", -1), "streams"),
        (info.get("consumers", 0), limits.get("max_consumers", -1), "consumers"),
    ):
        if limit > 0 and used >= _NEARLY * limit:
            what = f"the account has {used} of {limit} {name}: beyond that, calls are refused"
            yield Finding.warning(what, "raise its limit, or start more workers")


def _of_disk(place: Place) -> list[Finding]:
    """How often the server's files are synced: only its monitoring says so."""
    fix = "set sync_interval: always in its jetstream block, or keep three replicas"
    if place.replicas >= _SAFE_REPLICAS:
        return []
    if place.monitor_url is None:
        what = (
            "how often the server syncs to disk is not known; unless told, every two minutes: a power cut costs what came since"
        )
        return [Finding.warning(what, f"{fix}; with monitor_url set, it is looked at")]
    if urlsplit(place.monitor_url).scheme not in {"http", "https"}:
        return [Finding.error(f"monitor_url {place.monitor_url!r} is no http:// or https:// address", "write http://HOST:8222")]
    try:
        with urlopen(f"{place.monitor_url.rstrip('/')}/varz", timeout=_WITHIN) as answer:  # noqa: S310 - looked at above
            config = (json.load(answer).get("jetstream") or {}).get("config") or {}
    except (URLError, OSError, ValueError) as error:
        return [Finding.warning(f"{place.monitor_url} does not answer as NATS' monitoring: {error}", "set monitor_url right")]
    if config.get("sync_always"):
        return [Finding.ok("the server syncs each message to disk")]
    seconds = config.get("sync_interval", 0) / _BILLION
    return [Finding.warning(f"the server syncs to disk every {seconds:g} s: a power cut costs what came since", fix)]


def _of_stream(info: dict[str, Any], place: Place) -> Iterator[Finding]:
    config = info["config"]
    kept = config["num_replicas"]
    if kept != place.replicas:
        what = f"stream {config['name']} is kept on {kept} servers, and replicas is {place.replicas}"
        yield Finding.warning(what, f"nats stream edit {config['name']} --replicas {place.replicas}, or set replicas to {kept}")
    if kept == 1 and (info.get("cluster") or {}).get("name"):
        what = f"stream {config['name']} is on one server of a cluster: while that is away, no task is taken or run"
        yield Finding.warning(what, "keep three replicas")
    limited = [name for name in ("max_msgs", "max_bytes", "max_age") if config.get(name, 0) > 0]
    if limited:
        what = f"stream {config['name']} has {', '.join(limited)} set: the oldest tasks are dropped undone once it is reached"
        yield Finding.error(what, "remove it; limit the account, whose limit refuses new ones instead")


def _of_clock(place: Place, skew: float) -> Iterator[Finding]:
    if skew > _SKEW:
        what = f"the clock of {place.address} and this host's differ by {skew:.0f} s"
        yield Finding.warning(what, "let both keep time: eta and countdown are counted on the server's clock")


def _of_length(stats: QueueStats) -> Iterator[Finding]:
    if stats.ready > _MANY:
        what = f"{stats.ready} messages wait in {stats.queue!r}, the first for {stats.oldest_seconds or 0:.0f} s"
        yield Finding.warning(what, "start more workers, or purge what nobody needs any more")
