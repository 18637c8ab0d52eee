"""Which dead letters: the words to choose them by, and the pages they come in. Pure."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import TYPE_CHECKING, Final, final

from msgspec import Struct, field

if TYPE_CHECKING:
    from collections.abc import Iterable

    from chicory_dlq.letters import DeadLetter

__all__ = ["ALL", "Chosen", "DeadLetterPage", "DeadLetterStats", "doomed", "stats_of"]


@final
class Chosen(Struct, frozen=True, kw_only=True):
    """Dead letters by what they say; what is None chooses all. *since* is included, *until* is not; both are aware."""

    queue: str | None = None
    task: str | None = None
    reason: str | None = None
    error_type: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def __post_init__(self) -> None:
        for name in ("since", "until"):
            moment = getattr(self, name)
            if moment is not None and moment.tzinfo is None:
                raise ValueError(f"{name} must be an aware datetime, and {moment!r} has no time zone: add tzinfo=UTC")

    def fits(self, letter: DeadLetter) -> bool:
        """Whether *letter* is one of them, apart from its queue."""
        death = letter.death
        return (
            (self.task is None or letter.task == self.task)
            and (self.reason is None or death.reason == self.reason)
            and (self.error_type is None or death.error_type == self.error_type)
            and (self.since is None or death.at >= self.since)
            and (self.until is None or death.at < self.until)
        )


ALL: Final = Chosen()
"""Every dead letter."""


@final
class DeadLetterPage(Struct, frozen=True, kw_only=True):
    """A part of the dead letters. ``cursor`` continues behind it; None at the end."""

    letters: list[DeadLetter]
    cursor: str | None = None


@final
class DeadLetterStats(Struct, frozen=True, kw_only=True):
    """The dead letters of one queue, counted."""

    queue: str
    count: int
    oldest_at: datetime
    newest_at: datetime
    reasons: dict[str, int] = field(default_factory=dict)
    tasks: dict[str, int] = field(default_factory=dict)


def stats_of(queue: str, letters: Iterable[DeadLetter]) -> DeadLetterStats | None:
    """The numbers of one queue, the most frequent first; None for an empty one."""
    count, reasons, tasks = 0, Counter[str](), Counter[str]()
    moments: set[datetime] = set()
    for letter in letters:
        count += 1
        reasons[letter.death.reason] += 1
        tasks[letter.task] += 1
        moments = {min(moments | {letter.death.at}), max(moments | {letter.death.at})}
    if not count:
        return None
    return DeadLetterStats(
        queue=queue,
        count=count,
        oldest_at=min(moments),
        newest_at=max(moments),
        reasons=dict(reasons.most_common()),
        tasks=dict(tasks.most_common()),
    )


def doomed(
    moments: Iterable[tuple[datetime, str]], *, now: datetime, max_age: float | None, max_count: int | None
) -> list[tuple[str, str]]:
    """The ids that a retention gives up, the oldest first, each with ``age`` or ``count`` for its reason.

    *moments* says when each died.
    """
    ordered = sorted(moments)
    surplus = 0 if max_count is None else max(0, len(ordered) - max_count)
    found = []
    for number, (at, task_id) in enumerate(ordered):
        if max_age is not None and (now - at).total_seconds() > max_age:
            found.append((task_id, "age"))
        elif number < surplus:
            found.append((task_id, "count"))
    return found
