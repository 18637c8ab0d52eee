"""Messages that were delivered before and never settled: one of them may be what kills workers. Pure.

A broker's delivery count begins anew with each republish, so a suspect that is put back unrun carries its count in a header.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chicory.codec import read, revise
from chicory.errors import MessageDecodeError
from chicory.message import Settlement

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from chicory.message import Delivery

__all__ = ["DELIVERED_BEFORE", "SUSPECT", "choose", "deliveries_so_far", "is_suspect", "put_back"]

SUSPECT = 3
"""From this delivery on a message runs beside no other such message: else a crash condemns the innocent with the guilty."""
DELIVERED_BEFORE = "delivered_before"


def deliveries_so_far(delivery: Delivery, headers: Mapping[str, str]) -> int:
    """How often the message was handed out without being settled, this time included."""
    before = headers.get(DELIVERED_BEFORE, "0")
    return delivery.delivery_count + (int(before) if before.isdigit() else 0)


def is_suspect(delivery: Delivery) -> bool:
    """Whether its workers have died, or stalled, too often to run it beside another such message."""
    if delivery.delivery_count >= SUSPECT:
        return True
    return delivery.envelope.hop > 0 and deliveries_so_far(delivery, _headers(delivery)) >= SUSPECT


def choose(deliveries: Sequence[Delivery], *, may_keep: bool) -> tuple[list[Delivery], list[Delivery]]:
    """The deliveries to keep, and the suspects to put back: all but the first of them, or all unless *may_keep* one."""
    kept, others = [], []
    for delivery in deliveries:
        if not is_suspect(delivery):
            kept.append(delivery)
        elif may_keep:
            kept.append(delivery)
            may_keep = False
        else:
            others.append(delivery)
    return kept, others


def put_back(delivery: Delivery, due: datetime | None = None) -> Settlement:
    """Put a message back, until *due*. This delivery does not count, for it was not run; the former ones still do."""
    headers = _headers(delivery)
    before = deliveries_so_far(delivery, headers) - 1
    changes: dict[str, object] = {} if due is None else {"eta": due}
    envelope = revise(delivery.envelope, headers={**headers, DELIVERED_BEFORE: str(before)}, **changes)
    return Settlement(delivery=delivery, publish=(envelope,))


def _headers(delivery: Delivery) -> Mapping[str, str]:
    try:
        return read(delivery.envelope).headers
    except MessageDecodeError:
        return {}  # it is never run, and so kills nobody
