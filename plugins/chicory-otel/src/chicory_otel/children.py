"""The context of a try in the child process that runs its task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import context, propagate

from chicory.plugin import ChildContext
from chicory_otel.failing import Failures
from chicory_otel.propagation import extracted

__all__ = ["child_context"]


def child_context(failures: Failures) -> ChildContext:
    """What the propagator writes in the worker is what is current in the child."""

    def pack() -> dict[str, str]:
        carrier: dict[str, str] = {}
        try:
            propagate.inject(carrier)
        except Exception as error:  # noqa: BLE001 - whatever a propagator raises, the task runs
            failures.note("child", error)
        return carrier

    @contextmanager
    def enter(carried: Mapping[str, str]) -> Iterator[None]:
        token = None
        try:
            token = context.attach(extracted(carried))
        except Exception as error:  # noqa: BLE001 - the same
            failures.note("child", error)
        try:
            yield
        finally:
            if token is not None:
                context.detach(token)

    return ChildContext(name="otel", pack=pack, enter=enter)
