"""What ``chicory dlq`` shows: dead letters as lines and as JSON, numbers, and how far it is."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click
import msgspec
from msgspec.structs import asdict

if TYPE_CHECKING:
    from chicory_dlq.dead_letters import Progress
    from chicory_dlq.letters import DeadLetter

__all__ = ["argument_text", "counts", "error_line", "number", "progress", "short", "whole"]

_WIDTH = 60


@contextmanager
def progress(total: int, what: str) -> Iterator[Progress]:
    """A bar on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty() or not total:
        yield lambda _count: None
        return
    with click.progressbar(length=total, label=what, file=sys.stderr) as bar:
        yield bar.update


def number(count: int) -> str:
    return f"{count} dead letter" if count == 1 else f"{count} dead letters"


def counts(numbers: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in numbers.items())


def error_line(letter: DeadLetter) -> str:
    """One line, short enough for a table."""
    text = " ".join(f"{letter.death.error_type}: {letter.death.error}".split())
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 1]}…"


def short(letter: DeadLetter) -> dict[str, Any]:
    death = {name: value for name, value in asdict(letter.death).items() if name not in ("traceback", "queue")}
    return {"id": letter.id, "task": letter.task, "queue": letter.queue, **death, "deaths_before": len(letter.history)}


def whole(letter: DeadLetter) -> dict[str, Any]:
    sent = letter.arguments
    arguments: Any = msgspec.Raw(sent.data) if is_json(letter) else sent.data
    return {
        **short(letter),
        "traceback": letter.death.traceback,
        "history": letter.history,
        "headers": letter.document.headers,
        "enqueued_at": letter.document.enqueued_at,
        "content_type": sent.content_type,
        "arguments": arguments,
    }


def is_json(letter: DeadLetter) -> bool:
    """Whether its arguments stand in the message as they are; others are shown in base64."""
    return letter.document.packed is None and bool(letter.arguments.data)


def argument_text(letter: DeadLetter) -> str:
    data = letter.arguments.data
    if letter.is_readable and is_json(letter):
        return data.decode()
    return f"{len(data)} bytes of {letter.arguments.content_type}: {data[:_WIDTH]!r}"
