"""``LayerSuite``: what every layer around executions keeps to."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from chicory.codec import Document
from chicory.errors import MessageDecodeError, TaskNotFoundError
from chicory.message import TaskMessage
from chicory.middleware import Attempt, Decision, ExecuteMiddleware, Outcome, compose_execute, failed
from chicory.testing.builders import a_delivery, an_envelope

__all__ = ["LayerSuite", "an_attempt"]


def an_attempt(**fields: Any) -> Attempt:
    """An attempt at a message that could be read."""
    envelope = fields.pop("envelope", None) or an_envelope()
    message = TaskMessage(id=envelope.id, name="tasks.noop")
    document = Document(version=1, id=envelope.id, task="tasks.noop")
    defaults: dict[str, Any] = {
        "delivery": a_delivery(envelope=envelope),
        "worker_id": "w",
        "message": message,
        "document": document,
    }
    return Attempt(**{**defaults, **fields})


@pytest.mark.asyncio
class LayerSuite:
    """The contract of a layer. A subclass gives the fixture ``middleware``."""

    @pytest.fixture
    def middleware(self) -> ExecuteMiddleware:
        raise TypeError(f"{type(self).__name__} must give the fixture `middleware`")

    async def _run(self, middleware: ExecuteMiddleware, attempt: Attempt, inside: Outcome) -> tuple[Outcome, int]:
        entered = 0

        async def innermost(_attempt: Attempt, _proceed: Any) -> Outcome:
            nonlocal entered
            entered += 1
            return inside

        chain = compose_execute([middleware, ExecuteMiddleware(stage=10_000, name="inside", layer=innermost)])
        return await chain(attempt), entered

    async def test_it_has_a_stage_and_a_name(self, middleware: ExecuteMiddleware) -> None:
        assert 0 < middleware.stage < 1000
        assert middleware.name

    async def test_success_stays_success(self, middleware: ExecuteMiddleware) -> None:
        outcome, entered = await self._run(middleware, an_attempt(), Outcome(value=3))

        assert entered == 1
        assert (outcome.value, outcome.error, outcome.decision) == (3, None, Decision.DONE)

    async def test_a_failure_is_not_turned_into_success(self, middleware: ExecuteMiddleware) -> None:
        error = ValueError("no")

        outcome, _ = await self._run(middleware, an_attempt(), failed(error))

        assert outcome.error is not None

    @pytest.mark.parametrize(
        "problem", [MessageDecodeError("id", "truncated"), TaskNotFoundError("tasks.new", ())], ids=["unreadable", "unknown"]
    )
    async def test_messages_without_task_pass(self, middleware: ExecuteMiddleware, problem: Exception) -> None:
        is_unreadable = isinstance(problem, MessageDecodeError)
        attempt = an_attempt(problem=problem, **({"message": None, "document": None} if is_unreadable else {}))

        outcome, _ = await self._run(middleware, attempt, failed(problem, final=True))

        assert outcome.error is not None

    async def test_what_others_decided_stays(self, middleware: ExecuteMiddleware) -> None:
        deferred = Outcome(error=TimeoutError(), decision=Decision.DEFER, delay=2.0)

        outcome, _ = await self._run(middleware, an_attempt(), deferred)

        assert (outcome.decision, outcome.delay) == (Decision.DEFER, 2.0)

    async def test_cancellation_passes_through(self, middleware: ExecuteMiddleware) -> None:
        async def hang(_attempt: Attempt, _proceed: Any) -> Outcome:
            await asyncio.Event().wait()
            raise AssertionError("an event that nobody sets")

        chain = compose_execute([middleware, ExecuteMiddleware(stage=10_000, name="inside", layer=hang)])
        running = asyncio.ensure_future(chain(an_attempt()))
        await asyncio.sleep(0)
        running.cancel()

        with pytest.raises(asyncio.CancelledError):
            await running
