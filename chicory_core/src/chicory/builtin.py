"""The plugins that come with the core, registered through the same hooks as everyone's."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any, final

from msgspec.structs import replace

from chicory.errors import MaxRetriesExceededError, RetryError
from chicory.hookspecs import hookimpl
from chicory.memory import MemoryBackend, MemoryBroker, MemoryStore
from chicory.message import DeliveryMode
from chicory.middleware import Attempt, Decision, ExecuteMiddleware, Next, Outcome, Stage
from chicory.offers import BackendSpec, BrokerSpec, SerializerSpec
from chicory.serializer import JSON, JsonSerializer

if TYPE_CHECKING:
    from chicory.offers import App, Place
    from chicory.retry import RetryPolicy

__all__ = ["BUILTINS", "RetryLayer"]


@final
class JsonPlugin:
    """JSON as a serializer."""

    @hookimpl
    def chicory_register_serializers(self) -> list[SerializerSpec]:
        return [SerializerSpec(content_type=JSON, build=JsonSerializer)]


@final
class MemoryPlugin:
    """The in-memory broker and backend, one store per app."""

    @hookimpl
    def chicory_register_brokers(self) -> list[BrokerSpec]:
        return [BrokerSpec(name="memory", schemes=("memory",), build=_memory_broker)]

    @hookimpl
    def chicory_register_backends(self) -> list[BackendSpec]:
        return [BackendSpec(name="memory", schemes=("memory",), build=_memory_backend)]


def _memory_broker(place: Place) -> MemoryBroker:
    return MemoryBroker(place.clock, place.shared.setdefault("memory", MemoryStore(place.clock)))


def _memory_backend(place: Place) -> MemoryBackend:
    if isinstance(place.broker, MemoryBroker):
        return MemoryBackend(store=place.broker.store)
    return MemoryBackend(place.clock, place.shared.setdefault("memory", MemoryStore(place.clock)))


@final
class RetryPlugin:
    """Retries by ``retry_policy``, and by ``ctx.retry()``."""

    @hookimpl
    def chicory_execute_middleware(self, app: App) -> list[ExecuteMiddleware]:
        return [ExecuteMiddleware(stage=Stage.RECOVER, name="retry", layer=RetryLayer(Random()))]


@final
class RetryLayer:
    """Turns a failure into a retry where the task's policy has one left; the decision is `decide`, which is pure."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng

    async def __call__(self, attempt: Attempt, proceed: Next) -> Outcome:
        outcome = await proceed(attempt)
        if outcome.error is None or outcome.decision is not Decision.DONE or attempt.task is None or attempt.message is None:
            return outcome
        options = attempt.task.options_of_task
        policy = None if options.delivery_mode is DeliveryMode.AT_MOST_ONCE else options.retry_policy
        return decide(outcome, policy, attempt.message.retries, attempt.task.name, self._rng)


def decide(outcome: Outcome, policy: RetryPolicy | None, retries: int, task: str, rng: Random) -> Outcome:
    """What a failed try of *task*, its number *retries* + 1, leads to under *policy*."""
    error = outcome.error
    if outcome.final or error is None:
        return outcome
    max_retries = policy.max_retries if policy else 0
    if isinstance(error, RetryError):
        if policy is None or retries >= max_retries:
            exceeded = MaxRetriesExceededError(task, max_retries, error.cause)
            exceeded.__cause__ = error.__cause__
            exceeded.__traceback__ = error.__traceback__  # where the task asked for the retry
            return replace(outcome, error=exceeded, reason="retries_exhausted")
        delay = policy.delay(retries + 1, rng) if error.countdown is None else error.countdown
        return replace(outcome, decision=Decision.RETRY, delay=delay)
    planned = policy.delay_before(retries + 1, error, rng) if policy else None
    if planned is None:
        return replace(outcome, reason="retries_exhausted" if policy and retries >= max_retries else "error")
    return replace(outcome, decision=Decision.RETRY, delay=planned)


BUILTINS: dict[str, Any] = {"json": JsonPlugin(), "memory": MemoryPlugin(), "retry": RetryPlugin()}
