"""Dead letters as documents: what a message becomes when it is set aside, and what becomes of it when it is replayed. Pure.

A dead letter is an ordinary message in ``<queue>.dlq``: its own document, one hop further, with a field ``dead_letter`` more.
Bytes that are no document travel as the arguments of a document made for them, untouched.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, final

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from chicory.plugin import Arguments, Document, Envelope, TaskMessage, dead_letter_queue, describe, encode, revise, traceback_of

if TYPE_CHECKING:
    from chicory.plugin import Attempt

__all__ = ["UNREADABLE", "DeadLetter", "Death", "bury", "read_letter", "revive", "shorten"]

UNREADABLE: Final = "application/vnd.chicory.unreadable"
"""Content type of bytes that were no document."""
_NO_LIMIT: Final = 2**62
_OF_FORMER_TRIES: Final = frozenset({"unknown_since", "delivered_before"})
"""Headers in which workers count: a replayed message is delivered for the first time again."""
_HISTORY_TEXT: Final = 500


@final
class Death(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why a message was set aside, when and where.

    ``reason`` is one word: ``retries_exhausted``, ``error`` (a task without retries, or an error that its policy does not
    cover), ``final`` (``ctx.fail``, or a result that cannot be kept), ``validation``, ``delivery_limit``, ``unknown_task``,
    ``unreadable``, ``expired``, or what a layer of another plugin gave. ``retries`` is None where nobody could read it.
    """

    reason: str
    error_type: str
    error: str
    at: datetime
    queue: str
    worker_id: str
    host: str
    retries: int | None = None
    delivery_count: int = 1
    traceback: str | None = None


@final
class _Buried(Struct, frozen=True):
    """The fields that this plugin adds to a document."""

    dead_letter: Death | None = None
    deaths: list[Death] = []


@final
class DeadLetter(Struct, frozen=True, kw_only=True):
    """A message that was set aside. ``history`` are its former deaths, the oldest first; ``queue`` is where it came from."""

    id: str
    task: str
    queue: str
    death: Death
    history: tuple[Death, ...]
    envelope: Envelope
    document: Document

    @property
    def is_readable(self) -> bool:
        """Whether its bytes were a document; ``task`` is ``?`` if not."""
        return self.document.content_type != UNREADABLE

    @property
    def arguments(self) -> Arguments:
        """The arguments as they were sent; of an unreadable message, all of its bytes."""
        return self.document.argument_bytes()


_read_buried = msgspec.json.Decoder(_Buried).decode
_read_document = msgspec.json.Decoder(Document).decode


def death_of(attempt: Attempt, error: BaseException, reason: str, *, now: datetime, host: str) -> Death:
    """What is to be said about an attempt that failed for good."""
    kind, text = describe(error)
    return Death(
        reason=reason,
        error_type=kind,
        error=text,
        traceback=traceback_of(error),
        at=now,
        queue=attempt.delivery.envelope.queue,
        worker_id=attempt.worker_id,
        host=host,
        retries=attempt.message.retries if attempt.message else None,
        delivery_count=attempt.delivery.delivery_count,
    )


def bury(envelope: Envelope, death: Death, *, is_readable: bool) -> Envelope:
    """The dead letter of *envelope*: the same id, one hop further, in the dead letter queue."""
    there = dead_letter_queue(envelope.queue)
    if is_readable:
        return revise(envelope, queue=there, eta=None, dead_letter=death)
    wrapped = encode(
        TaskMessage(id=envelope.id, name="?", queue=there, priority=envelope.priority),
        Arguments(content_type=UNREADABLE, data=envelope.body),
        limit=_NO_LIMIT,
    )
    return revise(replace(wrapped, hop=envelope.hop), dead_letter=death)


def shorten(death: Death) -> Death:
    """The same without its traceback, and with the beginning of its text: to remember, or where there is no room."""
    text = death.error if len(death.error) <= _HISTORY_TEXT else f"{death.error[:_HISTORY_TEXT]}…"
    return replace(death, traceback=None, error=text)


def read_letter(envelope: Envelope) -> DeadLetter | None:
    """The dead letter in *envelope*; None for a message that somebody put there by hand."""
    try:
        buried, document = _read_buried(envelope.body), _read_document(envelope.body)
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError, RecursionError):
        return None
    if buried.dead_letter is None:
        return None
    return DeadLetter(
        id=envelope.id,
        task=document.task,
        queue=buried.dead_letter.queue,
        death=buried.dead_letter,
        history=tuple(buried.deaths),
        envelope=envelope,
        document=document,
    )


def revive(letter: DeadLetter, *, queue: str, arguments: Arguments | None, now: datetime, remember: int) -> Envelope:
    """The message that *letter* was, to be tried anew in *queue*: retries are counted from 0, and its deaths are kept.

    An unreadable one gets its bytes back, and so has no place for its history. An expiry that has passed is dropped.
    """
    if not letter.is_readable:
        return replace(letter.envelope, queue=queue, body=letter.arguments.data, hop=letter.envelope.hop + 1)
    document = letter.document
    deaths = [*letter.history, shorten(letter.death)]
    changes: dict[str, Any] = {
        "retries": None,
        "first_failure_at": None,
        "last_error": None,
        "dead_letter": None,
        "deaths": deaths[-remember:] if remember else None,
        "headers": {name: value for name, value in document.headers.items() if name not in _OF_FORMER_TRIES} or None,
    }
    if document.expires is not None and document.expires <= now:
        changes["expires"] = None
    if arguments is not None:
        is_inline = not document.packed
        changes["arguments"] = Raw(arguments.data) if is_inline else None
        changes["packed"] = None if is_inline else arguments.data
    return revise(letter.envelope, queue=queue, eta=None, **changes)
