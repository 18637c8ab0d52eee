"""Waiting between tries of something that should work again soon."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from random import Random

    from chicory.clock import Clock

__all__ = ["Backoff"]


@final
class Backoff:
    """Pauses that double from *first* to *longest* seconds, each drawn from the upper half of its range.

    Unlike full jitter this never pauses for almost nothing: what is waited for is a server that is coming back.
    """

    def __init__(self, clock: Clock, rng: Random, *, first: float = 0.1, longest: float = 10.0) -> None:
        self._clock, self._rng = clock, rng
        self._first, self._longest = first, longest
        self.tries = 0

    async def pause(self) -> None:
        """Wait a little longer than the last time."""
        await self._clock.sleep(self.next_delay())

    def next_delay(self) -> float:
        """The seconds that the next pause would take; counts as a try."""
        full: float = min(self._longest, self._first * 2 ** min(self.tries, 30))
        self.tries += 1
        return self._rng.uniform(full / 2, full)

    def reset(self) -> None:
        """It worked: begin with the shortest pause again."""
        self.tries = 0
