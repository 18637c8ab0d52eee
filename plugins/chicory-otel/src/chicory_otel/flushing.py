"""Exporting what is left, within a time: a collector that is gone must not keep a process that wants to end."""

from __future__ import annotations

import asyncio
import logging
import threading

from opentelemetry import metrics, trace

from chicory_otel.failing import is_measured, is_traced

__all__ = ["flush", "flushed"]

_LOG = logging.getLogger("chicory.otel")


def flush(seconds: float) -> bool:
    """Export everything that waits; False if that took longer than *seconds*. On a thread: the SDK keeps no deadline."""
    if not (is_traced() or is_measured()):
        return True
    done: list[bool] = []
    thread = threading.Thread(target=_export, args=(seconds, done), name="chicory-otel-flush", daemon=True)
    thread.start()
    thread.join(seconds)
    is_flushed = not thread.is_alive() and all(done)
    if not is_flushed:
        _LOG.warning("event=otel_not_flushed seconds=%s", seconds)
    return is_flushed


async def flushed(seconds: float) -> bool:
    """`flush`, beside a loop that goes on."""
    return await asyncio.to_thread(flush, seconds)


def _export(seconds: float, done: list[bool]) -> None:
    for provider in (trace.get_tracer_provider(), metrics.get_meter_provider()):
        force_flush = getattr(provider, "force_flush", None)  # an SDK has it, the API has not
        if force_flush is None:
            continue
        try:
            done.append(bool(force_flush(int(seconds * 1000))))
        except Exception as error:  # noqa: BLE001 - whatever an exporter raises, the process ends in good order
            done.append(False)
            _LOG.warning("event=otel_flush_failed error_type=%s", type(error).__qualname__)
