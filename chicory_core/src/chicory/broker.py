"""The broker contract: what moves messages between processes, and what it may leave out."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Protocol, Self, final, runtime_checkable

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from chicory.message import Delivery, Envelope, Settled, Settlement

__all__ = ["Broker", "Capabilities", "Opened", "QueueBrowser", "QueuePage", "QueueStats", "QueuedMessage", "dead_letter_queue"]


def dead_letter_queue(queue: str) -> str:
    """Where the dead letters of *queue* lie: an ordinary queue that no worker reads."""
    return f"{queue}.dlq"


@final
class Capabilities(Struct, frozen=True, kw_only=True):
    """What a broker can do: declared once, believed, and turned into tests by ``BrokerSuite``.

    delayed: holds an envelope back until it is due (else ``countdown`` and ``eta`` are refused, and workers hold retries).
    priorities: how many levels it tells apart; 10 for all of chicory's, 1 for none.
    dedup_window: seconds for which a second publish of one ``dedup_key`` is dropped; 0 if it cannot.
    atomic_publish: a settlement and the envelopes that follow it take effect together or not at all.
    fenced: a settlement by a consumer that lost its lease is refused by the store itself.
    browse: it is a `QueueBrowser` too.
    max_message_bytes: the largest body it takes; None if it sets no limit of its own.
    persistent: accepted messages survive the end of every process.
    """

    delayed: bool = True
    priorities: int = 10
    dedup_window: float = 0.0
    atomic_publish: bool = False
    fenced: bool = False
    browse: bool = False
    max_message_bytes: int | None = None
    persistent: bool = False


@final
class QueueStats(Struct, frozen=True, kw_only=True):
    """How many messages a queue holds, by what they wait for. ``oldest_seconds`` is the age of the oldest ready one."""

    queue: str
    ready: int = 0
    delayed: int = 0
    running: int = 0
    oldest_seconds: float | None = None


@final
class QueuedMessage(Struct, frozen=True, kw_only=True):
    """A message as a browser sees it, without consuming it."""

    envelope: Envelope
    state: str
    """``ready``, ``delayed`` or ``running``."""
    since: datetime
    """When it became (or becomes) due."""


@final
class QueuePage(Struct, frozen=True, kw_only=True):
    """A part of a queue. ``cursor`` continues behind it; None at the end."""

    messages: list[QueuedMessage]
    cursor: str | None = None


class Opened(Protocol):
    """Something with a connection: usable between ``__aenter__`` and ``__aexit__``, on the event loop that entered it."""

    async def __aenter__(self) -> Self:
        """Connect. May fail, and then leaves nothing open."""
        ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        """Close what was opened; nothing that was accepted is lost."""
        ...


class Broker(Opened, Protocol):
    """Moves envelopes between processes.

    Promised: an envelope is kept from the moment ``publish`` returns until a settlement of one of its deliveries is
    answered DONE; it is never with two consumers inside one live lease; ready envelopes of one queue come out by priority,
    then by the time they became due.
    Not promised: order across consumers, or that an envelope is delivered only once.

    Every method may raise ``BrokerConnectionError`` when the server does not answer; what was asked may then have happened.
    All are safe to repeat. Policy (retries, dead letters, metrics) sits above the broker, never in it.
    """

    capabilities: Capabilities

    @property
    def address(self) -> str:
        """Where it is, for people: a URL without password."""
        ...

    async def prepare(self, queues: Sequence[str], lease_seconds: float) -> Mapping[str, float]:
        """Announce this consumer, and return the lease in force for each queue, in seconds.

        A queue records its lease. While a live consumer uses the queue the recorded value holds; else *lease_seconds* does.
        """
        ...

    async def publish(self, envelopes: Sequence[Envelope]) -> None:
        """Accept *envelopes*, in one round trip where possible; durable to the degree the broker is configured for.

        A repeat of a ``dedup_key`` within ``capabilities.dedup_window`` seconds is dropped silently.

        Raises:
            BrokerFullError: no room; none of them was stored.
            PayloadTooLargeError: one is larger than ``capabilities.max_message_bytes``; none was stored.
        """
        ...

    async def receive(self, queues: Sequence[str], limit: int, wait: float) -> list[Delivery]:
        """Take up to *limit* ready envelopes, from the first queue that has some, then the next; each under its own lease.

        Waits up to *wait* seconds for the first one, and returns an empty list if none came. Envelopes whose lease ran out
        are ready again, with a delivery count one higher. Cancelling loses nothing: what was being taken at that moment goes
        back, or comes again when its lease ends.
        """
        ...

    async def settle(self, settlements: Sequence[Settlement]) -> list[Settled]:
        """End deliveries and publish what follows them, each in one step; the answers come in the order of *settlements*.

        Those with ``ends=False`` change nothing here; their answer tells whether the delivery is still alive.
        """
        ...

    async def extend(self, receipts: Sequence[str]) -> set[str]:
        """Keep these deliveries ours for one more lease, counted from now; return those that are not ours any more.

        Replaces what was left of the lease; does not add to it. Called from the lease thread, on a twin; without receipts too,
        for whoever calls it counts as a live consumer of its queues.
        """
        ...

    async def stats(self, queue: str) -> QueueStats:
        """Count the messages of *queue*, at a cost that does not grow with their number."""
        ...

    async def purge(self, queue: str) -> int:
        """Remove every message of *queue* that no consumer holds (delayed ones too) and return how many went."""
        ...

    async def cleanup(self, queue: str, stale_seconds: float) -> int:
        """Forget the consumers of *queue* not seen for *stale_seconds*; return how many. Their messages come again."""
        ...

    async def health(self) -> None:
        """Return if the broker answers.

        Raises:
            BrokerConnectionError: it does not.
        """
        ...

    def twin(self) -> Self:
        """An unopened copy with the same consumer identity, for another event loop: receipts of one are good in the other."""
        ...


@runtime_checkable
class QueueBrowser(Protocol):
    """Looks into queues without consuming them. A broker whose capabilities say ``browse`` is one."""

    async def queues(self) -> list[str]:
        """The names of all queues that hold messages or were announced, sorted."""
        ...

    async def list_messages(self, queue: str, *, limit: int, after: str | None = None) -> QueuePage:
        """Up to *limit* messages of *queue*, beginning behind the cursor *after*, each at most once while nothing changes."""
        ...

    async def get_messages(self, queue: str, ids: Sequence[str]) -> list[QueuedMessage]:
        """Those of *ids* that *queue* holds, in order of their ids."""
        ...

    async def delete_messages(self, queue: str, ids: Sequence[str]) -> int:
        """Remove those of *ids* that *queue* holds and no consumer has; return how many went."""
        ...

    async def move(self, queue: str, replacements: Mapping[str, Envelope]) -> set[str]:
        """Remove each id from *queue* and publish its envelope instead; return the ids that were there, and so moved.

        One step per id where ``capabilities.atomic_publish``. Of two callers that move one id, one moves it. A record of
        the id in the same store becomes PENDING at the new envelope's hop. A message stays if the envelope is of its id and
        not of a higher hop: it was moved, and has come back, since the caller looked at it.
        """
        ...
