"""Which deliveries this consumer holds, and until when: the server does not say who holds a message."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Leases", "delivery_count", "stored_at", "stream_sequence"]


def stream_sequence(receipt: str) -> int:
    """Where the message of a receipt is in its stream. A receipt is the subject that its acknowledgement goes to."""
    return int(_from_stream(receipt)[3])


def delivery_count(receipt: str) -> int:
    """How often the message of a receipt has been delivered."""
    return int(_from_stream(receipt)[2])


def stored_at(receipt: str) -> float:
    """When the message of a receipt was put in its stream, on the server's clock."""
    return int(_from_stream(receipt)[5]) / 1e9


def _from_stream(receipt: str) -> list[str]:
    """Stream, consumer, deliveries, sequence in the stream, and more: newer servers put domain and account before them."""
    tokens = receipt.split(".")
    return tokens[2:] if len(tokens) == 9 else tokens[4:]  # noqa: PLR2004 - as it was before those


@final
class Leases:
    """One consumer's, shared by its twins: written on several threads, each step one operation of a dictionary."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}
        self._seconds: dict[str, float] = {}

    def begin(self, receipt: str, since: float, seconds: float) -> None:
        """It is held for *seconds* since (monotonic) *since*."""
        self._seconds[receipt] = seconds
        self._until[receipt] = since + seconds

    def end(self, receipt: str) -> None:
        self._until.pop(receipt, None)
        self._seconds.pop(receipt, None)

    def is_live(self, receipt: str) -> bool:
        """Whether it is held, for all that can be known here; one that is over is forgotten."""
        until = self._until.get(receipt)
        if until is None:
            return False
        if time.monotonic() < until:
            return True
        self.end(receipt)
        return False

    def extend(self, receipts: Iterable[str], asked_at: float) -> set[str]:
        """The server has taken note of extensions that were sent at *asked_at*; return those for which that was too late.

        A lease that has ended meanwhile may be another's already: the server would extend it all the same.
        """
        late = set()
        for receipt in receipts:
            seconds = self._seconds.get(receipt)
            if seconds is not None and self.is_live(receipt):
                self._until[receipt] = asked_at + seconds
            else:
                late.add(receipt)
        return late
