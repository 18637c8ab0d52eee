"""Asks a server what it holds and what it did, without any client library: the contender's need not be the one we know."""

from __future__ import annotations

import json
import socket
import urllib.request
from abc import ABC, abstractmethod
from typing import Any
from urllib.parse import urlsplit

_LENGTHS = {"stream": "XLEN", "list": "LLEN", "zset": "ZCARD", "hash": "HLEN", "set": "SCARD"}
Answer = Any


class Probe(ABC):
    """One look at a broker's server."""

    @abstractmethod
    def counts(self) -> dict[str, float]:
        """What it did so far: ``commands``, those inside scripts too, and if known ``requests``, each of one or many."""

    @abstractmethod
    def held(self) -> dict[str, float]:
        """What it holds: ``items`` until somebody removes them, ``expiring`` ones, and ``bytes`` of memory or file."""


class NoServer(Probe):
    """Of a broker without a server."""

    def counts(self) -> dict[str, float]:
        return {}

    def held(self) -> dict[str, float]:
        return {}


class RedisProbe(Probe):
    """Speaks RESP 2 on one connection, and subtracts its own commands from what it tells."""

    def __init__(self, address: str) -> None:
        place = urlsplit(address)
        self._socket = socket.create_connection((place.hostname, place.port), timeout=60)
        self._file = self._socket.makefile("rb")
        self._own = self._reads = 0

    def ask(self, *words: str) -> Answer:
        return self.ask_all([words])[0]

    def ask_all(self, commands: list[tuple[str, ...]]) -> list[Answer]:
        self._own += len(commands)
        self._reads += 1
        self._socket.sendall(b"".join(_request(words) for words in commands))
        return [self._answer() for _ in commands]

    def keys(self, pattern: str) -> list[str]:
        return [key.decode() for key in self.ask("KEYS", pattern)]

    def counts(self) -> dict[str, float]:
        own = self._own
        stats = self.ask("INFO", "commandstats").decode()
        calls = sum(int(line.partition("calls=")[2].partition(",")[0]) for line in stats.splitlines() if "calls=" in line)
        facts = self.ask("INFO", "stats").decode()
        reads = int(facts.partition("total_reads_processed:")[2].split()[0])
        return {"commands": float(calls - own), "requests": float(reads - self._reads)}

    def held(self) -> dict[str, float]:
        names = self.keys("*")
        kinds = [answer.decode() for answer in self.ask_all([("TYPE", name) for name in names])]
        expiries = self.ask_all([("PTTL", name) for name in names])
        sizes = self.ask_all([(_LENGTHS.get(kind, "EXISTS"), name) for name, kind in zip(names, kinds, strict=True)])
        items = sum(size for size, expiry in zip(sizes, expiries, strict=True) if expiry == -1)
        memory = self.ask("INFO", "memory").decode().partition("used_memory:")[2].split()[0]
        return {"items": float(items), "expiring": float(sum(sizes) - items), "bytes": float(memory)}

    def _answer(self) -> Answer:
        line = self._file.readline()
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return None if rest == b"-1" else self._file.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return [self._answer() for _ in range(int(rest))]
        raise RuntimeError(f"the server answered {line!r}")


def _request(words: tuple[str, ...]) -> bytes:
    encoded = [word.encode() for word in words]
    return b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in encoded)


class NatsProbe(Probe):
    """Reads the server's monitoring pages."""

    def __init__(self, monitor: str) -> None:
        self._monitor = monitor

    def streams(self) -> list[dict[str, Any]]:
        accounts = self.page("jsz?streams=true&consumers=true&config=true").get("account_details", [])
        return [stream for account in accounts for stream in account.get("stream_detail", [])]

    def page(self, path: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self._monitor}/{path}", timeout=60) as answer:  # noqa: S310 - our own server on loopback
            found: dict[str, Any] = json.load(answer)
            return found

    def counts(self) -> dict[str, float]:
        return {"commands": float(self.page("varz")["in_msgs"])}

    def held(self) -> dict[str, float]:
        streams = self.streams()
        expiring = [stream for stream in streams if stream["config"].get("allow_msg_ttl") or stream["config"].get("max_age")]
        messages = sum(stream["state"]["messages"] for stream in streams)
        soon = sum(stream["state"]["messages"] for stream in expiring)
        size = sum(stream["state"]["bytes"] for stream in streams)
        return {"items": float(messages - soon), "expiring": float(soon), "bytes": float(size)}


def probe_of(broker: str, address: str, monitor: str) -> Probe:
    if broker == "redis":
        return RedisProbe(address)
    return NatsProbe(monitor) if broker == "nats" else NoServer()
