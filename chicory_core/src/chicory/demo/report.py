"""What the demo found out: adding up, and the table at the end. Pure."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from chicory.demo.tasks import FileCount

__all__ = ["Report"]

_SHOWN = 5


@final
class Report:
    """Adds results up as they come."""

    def __init__(self, sent: int, workers: int) -> None:
        self.sent, self.workers = sent, workers
        self.files = self.lines = self.tokens = self.retries = self.again = 0
        self.imports: Counter[str] = Counter()
        self.failures: dict[str, str] = {}
        self.killed: str | None = None
        self.seconds = 0.0

    @property
    def ended(self) -> int:
        return self.files + len(self.failures)

    @property
    def lost(self) -> int:
        """Tasks that were accepted and have no result."""
        return self.sent - self.ended

    def add(self, count: FileCount) -> None:
        """One file was counted."""
        self.files += 1
        self.lines += count.lines
        self.tokens += count.tokens
        self.imports.update(count.imports)

    def fail(self, path: str, error: str) -> None:
        """One file could not be counted, and why."""
        self.failures[path] = error

    def rows(self) -> list[tuple[str, str]]:
        """The table: what, and how much."""
        imported = ", ".join(f"{name} {count:,}" for name, count in self.imports.most_common(_SHOWN))
        kinds = Counter(error.partition(":")[0] for error in self.failures.values())
        failed = ", ".join(f"{kind} {count}" for kind, count in kinds.most_common())
        return [
            ("files", f"{self.files:,} counted by {self.workers} worker processes"),
            ("lines", f"{self.lines:,}"),
            ("tokens", f"{self.tokens:,}"),
            ("most imported", imported or "-"),
            ("tasks/s", f"{self.ended / self.seconds:,.0f} ({self.ended:,} in {self.seconds:.1f} s)" if self.seconds else "-"),
            ("failures", f"{len(self.failures)} ({failed}): files that do not parse" if self.failures else "0"),
            ("retries", f"{self.retries} by policy, {self.again} run again after their worker died"),
            ("killed", self.killed or "no worker"),
            ("lost", f"{self.lost} of {self.sent:,}"),
        ]
