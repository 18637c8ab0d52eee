"""What ``chicory doctor`` finds out about telemetry: whether it goes anywhere, and whether anybody is there to take it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from typing import final
from urllib.parse import urlsplit

from chicory.errors import ConfigurationError
from chicory.plugin import Finding
from chicory_otel.failing import is_measured, is_traced
from chicory_otel.sdk import INSTALL, METRICS, TRACES, exporters_wanted, is_installed, is_wanted
from chicory_otel.settings import OtelConfig

__all__ = ["Checks"]

_PATIENCE = 2.0
"""Seconds that a collector has to take a connection."""
_HTTP, _GRPC = "otlp_proto_http", "otlp_proto_grpc"
_DEFAULTS = {_HTTP: "http://localhost:4318", _GRPC: "http://localhost:4317"}
_PORTS = {"http": 80, "https": 443}


@final
class Checks:
    """The checks for one process's environment."""

    def __init__(self, settings: OtelConfig) -> None:
        self._settings = settings

    async def __call__(self) -> list[Finding]:
        if is_traced.ask() or is_measured.ask():
            return [Finding.ok("the code has set up an OpenTelemetry SDK, and chicory uses it")]
        try:
            is_asked = is_wanted(os.environ, setup=self._settings.setup)
            wanted = {signal: exporters_wanted(signal, os.environ) for signal in (TRACES, METRICS)}
        except ConfigurationError as error:
            return [Finding.error(str(error), "correct the variable: no worker starts with it")]
        if not is_asked:
            what = "neither the code nor a variable sets up an OpenTelemetry SDK: spans and metrics go nowhere"
            return [Finding.warning(what, "set OTEL_EXPORTER_OTLP_ENDPOINT, or leave the plugin out")]
        if not is_installed():
            return [Finding.error("there is no OpenTelemetry SDK, so that spans and metrics go nowhere", INSTALL)]
        findings: list[Finding] = []
        for signal, names in wanted.items():
            findings += _of_exporters(signal, names)
            for name in names:
                findings += await _of_collector(signal, name, os.environ)
        return findings


def _of_exporters(signal: str, wanted: list[str]) -> Iterator[Finding]:
    known = {entry.name for entry in entry_points(group=f"opentelemetry_{signal}_exporter")}
    for name in wanted:
        if name in known:
            yield Finding.ok(f"{signal} are exported by {name}")
        else:
            fix = INSTALL if name == _HTTP else "install the package that has it"
            yield Finding.error(f"{signal} are to be exported by {name}, and no package here has that: no worker starts", fix)


async def _of_collector(signal: str, name: str, environment: Mapping[str, str]) -> list[Finding]:
    """Whether somebody listens where an OTLP exporter sends to."""
    if name not in _DEFAULTS:
        return []
    own, shared = f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"
    address = environment.get(own) or environment.get(shared) or _DEFAULTS[name]
    try:
        parts = urlsplit(address if "//" in address else f"//{address}")  # grpc takes host:port alone
        host, port = parts.hostname, parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        host = port = None
    if host is None or port is None:
        return [Finding.error(f"{address!r} is no address of a collector", f"set {own} or {shared} to http://host:port")]
    try:
        async with asyncio.timeout(_PATIENCE):
            _, writer = await asyncio.open_connection(host, port)
    except OSError as error:  # a TimeoutError is one
        what = f"nobody listens at {host}:{port}, where {signal} are sent to ({type(error).__name__}): they are dropped"
        return [Finding.warning(what, "start a collector there; tasks run in any case")]
    writer.close()
    return [Finding.ok(f"somebody listens at {host}:{port}, where {signal} are sent to")]
