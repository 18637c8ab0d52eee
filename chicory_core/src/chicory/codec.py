"""Messages as documents: one versioned JSON text per message that a person can read. See docs/reference/envelope.md."""

from __future__ import annotations

import binascii
from datetime import datetime
from typing import Any, Final, final

import msgspec
from msgspec import Raw, Struct, field
from msgspec.structs import replace

from chicory.errors import MessageDecodeError, PayloadTooLargeError
from chicory.message import DEFAULT_QUEUE, Envelope, TaskMessage
from chicory.serializer import JSON

__all__ = ["DEFAULT_LIMIT", "VERSION", "Arguments", "Document", "encode", "is_strict_json", "read", "revise"]

VERSION = 1
DEFAULT_LIMIT: Final = 512 * 1024
"""The largest document, in bytes, unless the configuration says otherwise."""
_NOTHING: Final = Raw(b"")


@final
class Arguments(Struct, frozen=True, kw_only=True, gc=False):
    """A call's arguments as a serializer's bytes: of ``{"args": […], "kwargs": {…}}``."""

    content_type: str
    data: bytes


@final
class Document(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The wire form of a `TaskMessage`. Fields are only ever added; readers pass on those they do not know.

    The arguments stand in ``arguments`` when they are JSON, else as base64 in ``packed``.
    """

    version: int = field(name="chicory")
    id: str
    task: str
    queue: str = DEFAULT_QUEUE
    priority: int = 0
    retries: int = 0
    eta: datetime | None = None
    expires: datetime | None = None
    headers: dict[str, str] = field(default_factory=dict)
    enqueued_at: datetime | None = None
    first_failure_at: datetime | None = None
    last_error: str | None = None
    content_type: str = JSON
    arguments: Raw = _NOTHING
    packed: bytes | None = None

    def message(self) -> TaskMessage:
        """The message, its arguments still empty: they are decoded later, against the task's annotations."""
        return TaskMessage(
            id=self.id,
            name=self.task,
            queue=self.queue,
            retries=self.retries,
            eta=self.eta,
            priority=self.priority,
            expires=self.expires,
            headers=self.headers,
            enqueued_at=self.enqueued_at,
            first_failure_at=self.first_failure_at,
            last_error=self.last_error,
        )

    def argument_bytes(self) -> Arguments:
        """The arguments as the serializer of ``content_type`` wrote them."""
        data = bytes(self.arguments) if self.packed is None else self.packed
        return Arguments(content_type=self.content_type, data=data)


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Document).decode
_fields = msgspec.json.Decoder(dict[str, Raw]).decode


def encode(message: TaskMessage, arguments: Arguments, *, limit: int = DEFAULT_LIMIT) -> Envelope:
    """The envelope of a new message.

    Raises:
        PayloadTooLargeError: the document has more than *limit* bytes.
    """
    inline = arguments.content_type == JSON and is_strict_json(arguments.data)
    body = _encode(
        Document(
            version=VERSION,
            id=message.id,
            task=message.name,
            queue=message.queue,
            priority=message.priority,
            retries=message.retries,
            eta=message.eta,
            expires=message.expires,
            headers=message.headers,
            enqueued_at=message.enqueued_at,
            first_failure_at=message.first_failure_at,
            last_error=message.last_error,
            content_type=arguments.content_type,
            arguments=Raw(arguments.data) if inline else _NOTHING,
            packed=None if inline else arguments.data,
        )
    )
    if len(body) > limit:
        raise PayloadTooLargeError(f"the message for task {message.name!r}", len(body), limit)
    return Envelope(id=message.id, queue=message.queue, due=message.eta, priority=message.priority, body=body)


def read(envelope: Envelope, *, limit: int = DEFAULT_LIMIT) -> Document:
    """The document in *envelope*.

    Raises:
        MessageDecodeError: it is too large, is not a document, or is of a version this chicory does not know.
    """
    if len(envelope.body) > limit:
        raise MessageDecodeError(envelope.id, f"it has {len(envelope.body)} bytes, more than the {limit} allowed")
    try:
        document = _decode(envelope.body)
    except (msgspec.MsgspecError, UnicodeDecodeError, binascii.Error, RecursionError) as error:
        raise MessageDecodeError(envelope.id, str(error)) from error
    if document.version != VERSION:
        raise MessageDecodeError(
            envelope.id, f"its version is {document.version}, and this chicory reads {VERSION}: update the workers first"
        )
    return document


def revise(envelope: Envelope, **changes: Any) -> Envelope:
    """The envelope that follows *envelope*: one hop further, with *changes*, and with every field it does not know.

    *changes* are fields of `Document`; None removes one. ``queue``, ``priority`` and ``eta`` change the routing too.
    A body that cannot be read is passed on as it is: only the routing changes.
    """
    routing: dict[str, Any] = {"hop": envelope.hop + 1}
    if "queue" in changes:
        routing["queue"] = changes["queue"]
    if "priority" in changes:
        routing["priority"] = changes["priority"]
    if "eta" in changes:
        routing["due"] = changes["eta"]
    try:
        fields = _fields(envelope.body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return replace(envelope, **routing)
    for name, value in changes.items():
        if value is None:
            fields.pop(name, None)
        else:
            fields[name] = Raw(_encode(value))
    return replace(envelope, body=_encode(fields), **routing)


def is_strict_json(data: bytes) -> bool:
    """Whether these bytes are JSON to everybody: NaN and the infinities are not."""
    if b"NaN" not in data and b"Infinity" not in data:
        return True
    try:
        msgspec.json.decode(data)
    except msgspec.MsgspecError:
        return False
    return True
