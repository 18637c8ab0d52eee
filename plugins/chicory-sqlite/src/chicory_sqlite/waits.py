"""Who waits for the end of which task, in this process."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from chicory.plugin import ResultRecord
    from chicory_sqlite.requests import Wait

__all__ = ["Waits"]

_LOOK_AT_MOST = 500


@final
class Waits:
    """Waits by task id. Used by the engine's thread alone; knows no database."""

    def __init__(self) -> None:
        self._by_id: dict[str, list[Wait]] = defaultdict(list)
        self._looked_at = 0.0

    def __bool__(self) -> bool:
        return bool(self._by_id)

    def worth_a_look(self, new: Sequence[Wait], ended: Iterable[str], patience: float) -> set[str]:
        """The ids to look up now: of *new* waits, of those that *ended*, and every *patience* seconds some of the others."""
        for wait in new:
            self._by_id[wait.task_id].append(wait)
        if not self._by_id:
            return set()
        ids = {wait.task_id for wait in new} | (self._by_id.keys() & set(ended))
        if time.monotonic() - self._looked_at >= patience:
            self._looked_at = time.monotonic()
            ids |= self._some()
        return ids

    def settle(self, ids: set[str], records: dict[str, ResultRecord]) -> list[Wait]:
        """Take out the waits that *records* (what there is of *ids*) answer, with their results."""
        answered: list[Wait] = []
        for task_id in ids & self._by_id.keys():
            record = records.get(task_id)
            waits = self._by_id.pop(task_id)
            if record is not None and record.state.is_terminal:
                done, left = waits, []
            elif record is not None:
                done, left = [], waits
            else:
                done, left = [w for w in waits if w.exists], [w for w in waits if not w.exists]
            for wait in done:
                wait.result = record
            for wait in left:
                wait.exists = wait.exists or record is not None
            answered += done
            if left:
                self._by_id[task_id] = left
        return answered

    def fail(self, ids: set[str], error: Exception) -> list[Wait]:
        """Take out every wait for *ids*, with *error*."""
        failed = [wait for task_id in ids for wait in self._by_id.pop(task_id, [])]
        for wait in failed:
            wait.error = error
        return failed

    def _some(self) -> set[str]:
        """A bounded part of those that wait, another part each time; those whose caller has gone are dropped."""
        for task_id in [i for i, waits in self._by_id.items() if all(w.is_abandoned for w in waits)]:
            del self._by_id[task_id]
        ids = list(self._by_id)[:_LOOK_AT_MOST]
        for task_id in ids:
            self._by_id[task_id] = self._by_id.pop(task_id)  # to the end of the line
        return set(ids)
