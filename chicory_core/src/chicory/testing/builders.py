"""Values with sensible defaults, for tests that care about one field."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from chicory.codec import Arguments, encode
from chicory.message import Delivery, Envelope, ResultRecord, Settlement, TaskMessage, TaskState, new_id
from chicory.serializer import JSON

if TYPE_CHECKING:
    from chicory.broker import Broker

__all__ = ["a_delivery", "a_record", "a_settlement", "an_envelope", "receive_one"]

_PATIENCE = 10.0


def an_envelope(**fields: Any) -> Envelope:
    """An envelope with a readable document; *fields* are those of `Envelope`, and ``task`` for the document's task."""
    task = fields.pop("task", "tasks.noop")
    message_id = fields.setdefault("id", new_id())
    if "body" not in fields:
        arguments = Arguments(content_type=JSON, data=b'{"args":[],"kwargs":{}}')
        fields["body"] = encode(TaskMessage(id=message_id, name=task), arguments).body
    return Envelope(**{"queue": "default", **fields})


def a_delivery(**fields: Any) -> Delivery:
    """A delivery that no broker knows, for pure functions."""
    envelope = fields.pop("envelope", None) or an_envelope()
    defaults: dict[str, Any] = {"receipt": "r1", "delivery_count": 1, "lease_seconds": 30.0, "received_at": 0.0}
    return Delivery(envelope=envelope, **{**defaults, **fields})


def a_record(**fields: Any) -> ResultRecord:
    """A terminal record without value."""
    return ResultRecord(**{"id": new_id(), "state": TaskState.SUCCESS, "delivery_count": 1, **fields})


def a_settlement(delivery: Delivery, **fields: Any) -> Settlement:
    """The settlement of a delivery that ends well and leaves nothing."""
    return Settlement(delivery=delivery, **fields)


async def receive_one(broker: Broker, queue: str = "default", wait: float = 0.0) -> Delivery:
    """The next delivery of *queue*; an assertion if there is none.

    Of real time it gets *wait* and ten seconds: under a clock that stands still, *wait* alone would never be over.
    """
    try:
        async with asyncio.timeout(wait + _PATIENCE):
            deliveries = await broker.receive([queue], 1, wait)
    except TimeoutError:
        raise AssertionError(f"expected one delivery from {queue!r}, and none came") from None
    assert len(deliveries) == 1, f"expected one delivery from {queue!r}, got {len(deliveries)}"
    return deliveries[0]
