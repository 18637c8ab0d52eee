"""The layer that sets aside what failed for good, in the settle that ends it."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, final

from msgspec.structs import replace

from chicory.errors import LeaseLost
from chicory.plugin import App, Attempt, Next, Outcome, Stage, TaskState, failed, get_logger
from chicory_dlq.letters import Death, bury, death_of, shorten

if TYPE_CHECKING:
    from chicory.plugin import Envelope
    from chicory_dlq.settings import DlqConfig

__all__ = ["OPTION", "STAGE", "DeadLetterLayer"]

OPTION = "use_dead_letter_queue"
"""Option of a task that says for it what the worker's setting of that name says for all."""
STAGE = Stage.RECOVER - 1
"""Just outside of the retries, to see what they decided."""


@final
class DeadLetterLayer:
    """Gives an outcome that is a failure for good its dead letter, which the settlement then publishes."""

    def __init__(self, app: App, config: DlqConfig) -> None:
        self._app, self._config = app, config
        self._host = socket.gethostname()
        limit = app.broker_twin().capabilities.max_message_bytes
        self._limit = float("inf") if limit is None else limit
        self._log = get_logger("dlq")

    async def __call__(self, attempt: Attempt, proceed: Next) -> Outcome:
        if not self._is_on(attempt):
            return await proceed(attempt)
        try:
            outcome = await proceed(attempt)
        except asyncio.CancelledError as error:
            runner = asyncio.current_task()
            if runner is None or runner.cancelling() or attempt.settled:
                raise
            outcome = failed(error)  # nobody cancelled it: the task's own code raised that
        return self._set_aside(attempt, outcome)

    def _is_on(self, attempt: Attempt) -> bool:
        wanted = None if attempt.task is None else attempt.task.options_of_task.extra.get(OPTION)
        if wanted is None:
            return (attempt.config or self._app.config.worker).use_dead_letter_queue
        return bool(wanted)

    def _set_aside(self, attempt: Attempt, outcome: Outcome) -> Outcome:
        error = outcome.error
        if not outcome.has_failed or error is None or isinstance(error, LeaseLost):
            return outcome
        if attempt.settled:  # given up to its one run: its message is gone, and must not come again
            return outcome
        if outcome.state is not None and not (outcome.state is TaskState.EXPIRED and self._config.expired):
            return outcome
        reason = outcome.reason or ("final" if outcome.final else "error")
        death = death_of(attempt, error, reason, now=self._app.clock.now(), host=self._host)
        letter = self._fitting(attempt, death)
        if letter is None:
            return replace(outcome, reason=reason)
        return replace(outcome, reason=reason, state=TaskState.DEAD_LETTERED, publish=(*outcome.publish, letter))

    def _fitting(self, attempt: Attempt, death: Death) -> Envelope | None:
        """The dead letter, with a shorter report where the broker takes no more; None where it takes not even that."""
        envelope, is_readable = attempt.delivery.envelope, attempt.document is not None
        for report in (death, shorten(death)):
            letter = bury(envelope, report, is_readable=is_readable)
            if len(letter.body) <= self._limit:
                return letter
        self._log.error(
            "dead_letter_too_large", task=attempt.task_name, task_id=envelope.id, bytes=len(letter.body), limit=self._limit
        )
        return None
