"""What users see as ``app.broker`` and ``app.backend``: they connect, encode, batch and decode; plugins need not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar, final

from msgspec.structs import replace

from chicory import portal
from chicory.broker import QueueBrowser
from chicory.errors import CapabilityError, EncodingError
from chicory.heartbeat import forget_workers
from chicory.message import DEFAULT_QUEUE
from chicory.options import check_id, check_priority, check_queue
from chicory.record import read_result
from chicory.task import Call

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping, Sequence

    from chicory.backend import Backend
    from chicory.broker import Capabilities, QueuedMessage, QueuePage, QueueStats
    from chicory.client import Client
    from chicory.clock import Clock
    from chicory.codec import Arguments
    from chicory.config import ChicoryConfig
    from chicory.message import Envelope, ResultRecord, TaskMessage, TaskResult, WorkerStats
    from chicory.record import ResultDocument
    from chicory.serializer import Serializer
    from chicory.task import Task

__all__ = ["AppBackend", "AppBroker", "Host"]

T = TypeVar("T")


class Host(Protocol):
    """What the facades need of the app."""

    @property
    def clock(self) -> Clock: ...
    @property
    def config(self) -> ChicoryConfig: ...
    @property
    def result_ttl(self) -> float: ...
    @property
    def tasks(self) -> Mapping[str, Task[..., Any]]: ...
    @property
    def serializers(self) -> Mapping[str, Serializer]: ...
    async def client(self) -> Client:
        """The opened client of the running event loop."""
        ...

    async def send(self, calls: Sequence[Call]) -> None: ...
    def arguments_of(self, message: TaskMessage) -> Arguments:
        """The bytes of a message's arguments, by its task's annotations if the task is registered here."""
        ...


@final
class AppBroker:
    """The app's broker. Every method connects by itself and may raise ``BrokerConnectionError``."""

    def __init__(self, host: Host, *, address: str, capabilities: Capabilities) -> None:
        self._host = host
        self.address = address
        """Where it is, without password."""
        self.capabilities = capabilities

    def __repr__(self) -> str:
        return f"<broker {self.address}>"

    async def publish(self, message: TaskMessage, queue: str | None = None) -> None:
        """Send a message made by hand, to *queue* if given, else to its own.

        Raises:
            ValidationError: its task is registered here, and the arguments do not fit.
            ValueError: its queue or priority makes no sense.
        """
        if queue is not None:
            message = replace(message, queue=queue)
        check_id(message.id)
        check_queue(message.queue)
        check_priority(message.priority)
        if message.eta is not None and message.eta.tzinfo is None:
            raise ValueError(f"eta must be an aware datetime, and {message.eta!r} has no time zone: add tzinfo=UTC")
        if message.enqueued_at is None:
            message = replace(message, enqueued_at=self._host.clock.now())
        await self._host.send((Call(message=message, arguments=self._host.arguments_of(message)),))

    async def stats(self, queue: str = DEFAULT_QUEUE) -> QueueStats:
        """How many messages of *queue* are ready, delayed and running."""
        return await (await self._host.client()).connection.broker.stats(queue)

    async def purge(self, queue: str = DEFAULT_QUEUE) -> int:
        """Remove every message of *queue* that no worker holds; return how many went. They are lost."""
        return await (await self._host.client()).connection.broker.purge(queue)

    async def cleanup_stale_clients(self, queue: str = DEFAULT_QUEUE, stale_seconds: float = 60.0) -> int:
        """Forget consumers of *queue* not seen for *stale_seconds*; return how many. No message is lost."""
        return await (await self._host.client()).connection.broker.cleanup(queue, stale_seconds)

    async def health(self) -> None:
        """Return if the broker answers."""
        await (await self._host.client()).connection.broker.health()

    # --- browsing (see ``broker.QueueBrowser``), where the capabilities say so ---------------------

    async def queues(self) -> list[str]:
        return await (await self._browser()).queues()

    async def list_messages(self, queue: str, *, limit: int, after: str | None = None) -> QueuePage:
        return await (await self._browser()).list_messages(queue, limit=limit, after=after)

    async def get_messages(self, queue: str, ids: Sequence[str]) -> list[QueuedMessage]:
        return await (await self._browser()).get_messages(queue, ids)

    async def delete_messages(self, queue: str, ids: Sequence[str]) -> int:
        return await (await self._browser()).delete_messages(queue, ids)

    async def move(self, queue: str, replacements: Mapping[str, Envelope]) -> set[str]:
        return await (await self._browser()).move(queue, replacements)

    async def _browser(self) -> QueueBrowser:
        broker = (await self._host.client()).connection.broker
        if not self.capabilities.browse or not isinstance(broker, QueueBrowser):
            raise CapabilityError("looking into queues", self.address, "choose a broker that can browse")
        return broker


@final
class AppBackend:
    """The app's result backend. Every method connects by itself and may raise ``BackendConnectionError``."""

    def __init__(self, host: Host, *, address: str) -> None:
        self._host = host
        self.address = address
        """Where it is, without password."""

    def __repr__(self) -> str:
        return f"<backend {self.address}>"

    # --- workers -------------------------------------------------------------------------------

    async def get_active_workers(self) -> list[WorkerStats]:
        """The workers whose heartbeat is not older than their ``heartbeat_ttl``, by id."""
        return [stats for stats, is_live in await (await self._backend()).heartbeats() if is_live]

    async def get_heartbeat(self, worker_id: str) -> WorkerStats | None:
        """The newest heartbeat of a worker, live or not; None if there is none."""
        beats = await (await self._backend()).heartbeats()
        return next((stats for stats, _ in beats if stats.worker_id == worker_id), None)

    async def cleanup_stale_clients(self, stale_seconds: float = 60.0) -> int:
        """Forget workers without heartbeat for *stale_seconds*; return how many.

        At-most-once tasks that were running there end as FAILURE with ``WorkerLost``: nobody else may run them.
        """
        host = self._host
        return await forget_workers(
            await self._backend(), now=host.clock.now(), stale_seconds=stale_seconds, result_ttl=host.result_ttl
        )

    async def health(self) -> None:
        """Return if the backend answers."""
        await (await self._backend()).health()

    # --- results (see ``result.ResultSource``) ---------------------------------------------------

    @property
    def clock(self) -> Clock:
        return self._host.clock

    @property
    def unknown_seconds(self) -> float:
        return self._host.config.unknown_seconds

    async def tracks_pending(self) -> bool:
        return (await self._host.client()).connection.joined.tracks_pending

    async def fetch_record(self, task_id: str) -> ResultRecord | None:
        return (await (await self._backend()).fetch([task_id]))[0]

    async def wait_record(self, task_id: str) -> ResultRecord | None:
        connection = (await self._host.client()).connection
        return await (await self._backend()).wait(task_id, exists=connection.joined.tracks_pending)

    async def forget(self, task_id: str) -> bool:
        return await (await self._backend()).delete([task_id]) > 0

    def read(self, record: ResultRecord) -> TaskResult:
        return read_result(record, self._value)

    def run_sync(self, coroutine: Coroutine[Any, Any, T], *, blocking: str, instead: str) -> T:
        return portal.run_sync(coroutine, blocking=blocking, instead=instead)

    def _value(self, document: ResultDocument, data: Arguments) -> Any:
        serializer = self._host.serializers.get(data.content_type)
        if serializer is None:
            raise EncodingError(
                f"the result of task {document.task!r} is {data.content_type!r}, which is not enabled here: "
                "add it to CHICORY_ACCEPT_CONTENT if its workers are trusted"
            )
        task = self._host.tasks.get(document.task or "")
        if task is None:
            return serializer.loads(data.data)
        return task.signature.decode_result(data, serializer=serializer)

    async def _backend(self) -> Backend:
        backend = (await self._host.client()).connection.backend
        assert backend is not None, "there is no facade without backend"  # noqa: S101
        return backend
