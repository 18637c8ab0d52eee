"""What goes wrong with dead letters."""

from __future__ import annotations

from typing import final

from chicory.errors import ChicoryError

__all__ = ["ArgumentEditError", "DeadLetterNotFoundError"]


@final
class DeadLetterNotFoundError(ChicoryError):
    """No dead letter queue that was looked into holds this id: it was replayed or deleted, or never was there."""

    def __init__(self, task_id: str, queues: tuple[str, ...]) -> None:
        super().__init__(task_id, queues)
        self.task_id, self.queues = task_id, queues

    def __str__(self) -> str:
        where = ", ".join(self.queues) or "any dead letter queue"
        return f"no dead letter {self.task_id!r} in {where}: it was replayed or deleted, or never was there"


@final
class ArgumentEditError(ChicoryError):
    """The arguments of a dead letter cannot be edited, or what they were edited to does not fit its task."""

    def __init__(self, task_id: str, task: str, reason: str) -> None:
        super().__init__(task_id, task, reason)
        self.task_id, self.task, self.reason = task_id, task, reason

    def __str__(self) -> str:
        return f"dead letter {self.task_id!r} of task {self.task!r} keeps its arguments, and stays: {self.reason}"
