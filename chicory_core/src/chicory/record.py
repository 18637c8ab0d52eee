"""Results as documents: what a backend keeps as the body of a `ResultRecord`."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, final

import msgspec
from msgspec import Raw, Struct, field

from chicory.codec import VERSION, Arguments, is_strict_json
from chicory.errors import EncodingError
from chicory.message import ResultRecord, TaskResult
from chicory.serializer import JSON

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ResultDocument", "pack", "read_result", "unpack"]

_NOTHING: Final = Raw(b"")


@final
class ResultDocument(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The wire form of a `TaskResult`; its id, state and position stand in the record around it. Fields are only added."""

    version: int = field(name="chicory", default=0)
    task: str | None = None
    queue: str | None = None
    retries: int = 0
    worker_id: str | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    error_type: str | None = None
    error: str | None = None
    traceback: str | None = None
    progress: tuple[float, float] | None = None
    ignored: bool = False
    reason: str | None = None
    content_type: str = JSON
    value: Raw = _NOTHING
    packed: bytes | None = None

    def value_bytes(self) -> Arguments | None:
        """The value as its serializer wrote it; None if there is none."""
        data = bytes(self.value) if self.packed is None else self.packed
        return Arguments(content_type=self.content_type, data=data) if data else None


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(ResultDocument).decode


def pack(document: ResultDocument, value: Arguments | None = None) -> bytes:
    """The bytes of *document* with *value* in it: as it is where that is JSON, else as base64."""
    if value is None:
        return _encode(msgspec.structs.replace(document, version=VERSION))
    inline = value.content_type == JSON and is_strict_json(value.data)
    return _encode(
        msgspec.structs.replace(
            document,
            version=VERSION,
            content_type=value.content_type,
            value=Raw(value.data) if inline else _NOTHING,
            packed=None if inline else value.data,
        )
    )


def unpack(record: ResultRecord) -> ResultDocument:
    """The document in a record; an empty one where the record says no more than its state.

    Raises:
        EncodingError: the bytes are not a result document.
    """
    if not record.body:
        return ResultDocument()
    try:
        return _decode(record.body)
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise EncodingError(f"the result of {record.id!r} cannot be read: {error}") from error


def read_result(record: ResultRecord, value_of: Callable[[ResultDocument, Arguments], Any]) -> TaskResult:
    """All that *record* says; *value_of* turns the bytes of the value into the value."""
    document = unpack(record)
    value = document.value_bytes()
    return TaskResult(
        task_id=record.id,
        state=record.state,
        task=document.task,
        queue=document.queue,
        value=None if value is None else value_of(document, value),
        error_type=document.error_type,
        error=document.error,
        traceback=document.traceback,
        retries=document.retries,
        hop=record.hop,
        delivery_count=record.delivery_count,
        worker_id=document.worker_id,
        started_at=document.started_at,
        finished_at=document.finished_at,
        progress=document.progress,
        ignored=document.ignored,
        reason=document.reason,
    )
