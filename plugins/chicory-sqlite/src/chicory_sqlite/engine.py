"""One thread per file and process: it owns the connection, and commits what many asked for at the same time together."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import sqlite3
import threading
import time
from collections import deque
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, TypeVar, final

from chicory.errors import BrokerConnectionError, BrokerFullError, ChicoryError
from chicory_sqlite.requests import Receive, Request, Wait, answer
from chicory_sqlite.schema import open_database, when_free
from chicory_sqlite.tables import Tables
from chicory_sqlite.waits import Waits
from chicory_sqlite.wakeup import RESULTS, WORK, Doorbell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from chicory.plugin import Delivery, ResultRecord
    from chicory_sqlite.settings import Durability
    from chicory_sqlite.tables import File

__all__ = ["Engine"]

T = TypeVar("T")

_JUMP = 5.0
"""Seconds by which the wall clock may leave the monotonic one before it counts as having been set."""
_HOUSEKEEPING = 1.0


@final
class Engine:
    """The one connection of this process to a file. `submit`, `receive` and `wait` may be called on any event loop.

    What waits when a transaction begins travels in it (group commit): the disk is synced once for all. An operation that fails
    is rolled back and tried alone, so that it takes no neighbour with it. Operations may therefore run more than once.
    """

    def __init__(self, file: File) -> None:
        self.file = file
        self.opened: Future[None] = Future()
        self.closed: Future[None] = Future()
        self._inbox: deque[Request] = deque()
        self._is_parked = False
        self._is_closing = False
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._durability = file.durability
        self._receives: list[Receive] = []
        self._waits = Waits()
        self._looked_at_receives = 0.0
        self._kept_house = 0.0
        self._offset = self._clock_offset()
        self._thread = threading.Thread(target=self._run, name=f"chicory-sqlite-{file.path.name}", daemon=True)
        self._thread.start()

    # --- called on event loops -----------------------------------------------------------------

    def submit(self, operation: Callable[[Tables], T], *, is_write: bool = True) -> asyncio.Future[T]:
        """Run *operation* on the engine's thread, in a transaction if it writes."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._put(Request(operation, future, is_write=is_write))
        return future

    def receive(self, queues: Sequence[str], limit: int, owner: str, wait: float) -> asyncio.Future[list[Delivery]]:
        """Claim for *owner*, waiting up to *wait* seconds. Cancelling the future gives back what was claimed."""
        future: asyncio.Future[list[Delivery]] = asyncio.get_running_loop().create_future()
        deadline = self.file.clock.monotonic() + wait
        self._put(Receive(queues, limit, owner, deadline, future))
        return future

    def wait(self, task_id: str, *, exists: bool) -> asyncio.Future[ResultRecord | None]:
        """The terminal record of *task_id*; None if there is none (any more)."""
        future: asyncio.Future[ResultRecord | None] = asyncio.get_running_loop().create_future()
        self._put(Wait(task_id, future, exists=exists))
        return future

    def close(self) -> None:
        """Finish what was asked for, and end. ``closed`` tells when."""
        self._is_closing = True
        self._wake()
        self.closed.add_done_callback(lambda _: self._close_pipe())  # not by the thread, which may end before it is woken

    def _put(self, request: Request) -> None:
        self._inbox.append(request)
        if self._is_parked:
            self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # full of wake-ups that were not read yet: as good
            os.write(self._wake_write, b"!")

    # --- the thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._connection = open_database(self.file.path, self.file.durability, self.file.lock_seconds)
            self._bell = Doorbell(self.file.path)
            self._bell.open()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is for those who wait to have it opened
            self.opened.set_exception(error)
            self._close_pipe()
            return
        self._tables = Tables(self._connection, self.file.clock)
        self.opened.set_result(None)
        while not self._is_closing or self._inbox:
            self._park()
            requests = [self._inbox.popleft() for _ in range(len(self._inbox))]
            try:
                self._serve([*self._check_clock(), *requests])
            except Exception as error:  # noqa: BLE001 - this thread must live: whoever asked gets to know
                self._fail_all([*requests, *self._receives], self._translated(error))
        for receive in self._receives:
            receive.result = []
        self._answer(self._receives)
        self._bell.close()
        self._connection.close()
        self.closed.set_result(None)

    def _close_pipe(self) -> None:
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _park(self) -> None:
        """Return when there is something to do: a request, a ring, a due time, or the end of patience."""
        self._is_parked = True
        if not self._inbox and not self._is_closing:
            poll = select.poll()
            poll.register(self._wake_read, select.POLLIN)
            for own in self._ears():
                poll.register(own, select.POLLIN)
            poll.poll(self._timeout())
        self._is_parked = False
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 4096)

    def _ears(self) -> list[int]:
        kinds = [kind for kind, waiting in ((WORK, self._receives), (RESULTS, self._waits)) if waiting]
        return [own.fileno() for kind in kinds if (own := self._bell.listen(kind)) is not None]

    def _timeout(self) -> float | None:
        """Milliseconds to wait at most; None when nobody waits for anything that time could bring."""
        if not self._receives and not self._waits:
            return None
        monotonic = self.file.clock.monotonic()
        moments = [min(r.deadline, r.change) - monotonic for r in self._receives]
        return max(0.0, min([self._bell.patience, *moments])) * 1000 + 0.5

    def _serve(self, requests: Sequence[Request]) -> None:
        plain = [r for r in requests if type(r) is Request]
        writes, reads = [r for r in plain if r.is_write], [r for r in plain if not r.is_write]
        candidates = [r for r in requests if isinstance(r, Receive)] + self._unpark_receives()
        if not writes:
            candidates = self._with_work(candidates)
        if writes or candidates:
            self._commit(writes, candidates)
        for read in reads:
            self._read(read)
        self._answer(plain)
        self._serve_waits([r for r in requests if isinstance(r, Wait)])
        self._ring()
        self._keep_house()

    # --- transactions --------------------------------------------------------------------------

    def _commit(self, writes: Sequence[Request], receives: Sequence[Receive]) -> None:
        """Run these in one transaction; if it fails, each in its own. What a write made ready goes to who waits for it here."""
        try:
            claiming = self._transact(writes, receives)
        except BrokerConnectionError as error:  # the lock was not to be had: the same for all
            self._fail([*writes, *receives], error)
            return
        except Exception as error:  # noqa: BLE001 - one of the operations: it must not take its neighbours with it
            if len(writes) + len(receives) > 1:
                for request in writes:
                    self._commit([request], [])
                for receive in receives:
                    self._commit([], [receive])
            else:
                self._fail([*writes, *receives], self._translated(error))
            return
        for receive in claiming:
            receive.change = 0.0  # what was written may become ready by itself sooner than was known before: look again
        self._park_or_answer(claiming)

    def _transact(self, writes: Sequence[Request], receives: Sequence[Receive]) -> list[Receive]:
        execute = self._connection.execute
        self._sync(self.file.durability if writes else "normal")
        when_free(lambda: execute("BEGIN IMMEDIATE"), str(self.file.path), self.file.lock_seconds)
        try:
            for request in writes:
                request.result = request.operation(self._tables)
            woken = [r for r in self._receives if not r.queues.isdisjoint(self._tables.messages.work)]
            claiming = [*receives, *woken]
            for receive in claiming:
                receive.result = receive.operation(self._tables)
            execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                execute("ROLLBACK")
            self._tables.forget()
            for receive in (*receives, *self._receives):
                receive.result = None
            raise
        self._receives = [r for r in self._receives if r not in woken]
        return claiming

    def _sync(self, durability: Durability) -> None:
        """How the next commit is synced. One that only claims need not be: undone by a power cut, its messages are ready."""
        if durability != self._durability:
            self._connection.execute(f"PRAGMA synchronous = {durability.upper()}")
            self._durability = durability

    def _read(self, request: Request) -> None:
        try:
            request.result = self._patiently(lambda: request.operation(self._tables))
        except Exception as error:  # noqa: BLE001 - for whoever asked
            request.error = self._translated(error)

    def _patiently(self, read: Callable[[], T]) -> T:
        """Read outside of a transaction. Another process may lock readers out for a moment while it recovers the log."""
        found: list[T] = []
        when_free(lambda: found.append(read()), str(self.file.path), self.file.lock_seconds)
        return found[0]

    def _fail_all(self, requests: Sequence[Request], error: Exception) -> None:
        """Something went wrong that no single request is to blame for."""
        self._receives = []
        for request in requests:
            request.error = error
        self._answer(requests)

    def _fail(self, requests: Sequence[Request], error: Exception) -> None:
        for request in requests:
            request.error = error
        self._answer([r for r in requests if isinstance(r, Receive)])

    def _translated(self, error: Exception) -> Exception:
        if not isinstance(error, sqlite3.Error):
            return error
        if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL:
            return BrokerFullError(self.file.address, str(error))
        return BrokerConnectionError(self.file.address, str(error))

    # --- receives ------------------------------------------------------------------------------

    def _unpark_receives(self) -> list[Receive]:
        """Waiting receives for which something may have become ready, or whose time is over."""
        if not self._receives:
            return []
        words = self._bell.heard(WORK)
        monotonic = self.file.clock.monotonic()
        is_impatient = time.monotonic() - self._looked_at_receives >= self._bell.patience
        due = [
            r
            for r in self._receives
            if is_impatient or min(r.change, r.deadline) <= monotonic or not r.queues.isdisjoint(words)
        ]
        self._receives = [r for r in self._receives if r not in due]
        return due

    def _with_work(self, candidates: Sequence[Receive]) -> list[Receive]:
        """Those for which a transaction is worth its lock; the others wait on, or are answered if their time is over."""
        worth: list[Receive] = []
        idle: list[Receive] = []
        for receive in candidates:
            has_work, seconds = self._patiently(partial(self._tables.messages.look, receive.queues))
            receive.change = self.file.clock.monotonic() + seconds
            (worth if has_work else idle).append(receive)
        if candidates:
            self._looked_at_receives = time.monotonic()
        self._park_or_answer(idle)
        return worth

    def _park_or_answer(self, receives: Sequence[Receive]) -> None:
        """Answer those that got something, or whose time is over; the others wait on."""
        now = self.file.clock.monotonic()
        answered = []
        for receive in receives:
            is_over = receive.deadline <= now or receive.is_abandoned
            if receive.result or is_over:
                receive.result = receive.result or []
                answered.append(receive)
            else:
                self._receives.append(receive)
        self._answer(answered)

    # --- answers and bells ---------------------------------------------------------------------

    def _serve_waits(self, new: Sequence[Wait]) -> None:
        heard = self._bell.heard(RESULTS) if self._waits else set()
        ids = self._waits.worth_a_look(new, {*self._tables.ended(), *heard}, self._bell.patience)
        if not ids:
            return
        try:
            found = self._patiently(lambda: self._tables.records.fetch(list(ids)))
        except (sqlite3.Error, BrokerConnectionError) as error:
            self._answer(self._waits.fail(ids, self._translated(error)))
        else:
            self._answer(self._waits.settle(ids, {record.id: record for record in found}))

    def _answer(self, requests: Iterable[Request]) -> None:
        answer(requests, self._give_back)

    def _give_back(self, requests: Sequence[Request]) -> None:
        """What was claimed for a receive that nobody waits for any more becomes ready again, uncounted."""
        deliveries = [d for r in requests if isinstance(r, Receive) and r.result for d in r.result]
        if deliveries:
            self._put(Request(lambda tables: tables.messages.release(deliveries), None, is_write=True))

    def _ring(self) -> None:
        """Tell other processes what the last transaction brought."""
        work, ended = self._tables.take_news()
        if work:
            self._bell.ring(WORK, work)
        if ended:
            self._bell.ring(RESULTS, ended)

    # --- upkeep --------------------------------------------------------------------------------

    def _keep_house(self) -> None:
        """Drop rows whose time is over, in small steps, for at most a twentieth of the time."""
        started = time.monotonic()
        if started - self._kept_house < _HOUSEKEEPING:
            return
        self._kept_house = started
        with contextlib.suppress(sqlite3.Error, ChicoryError):  # another time
            while self._tables.messages.has_expired() and time.monotonic() - started < _HOUSEKEEPING / 20:
                self._transact([Request(lambda tables: tables.messages.expire(), None, is_write=True)], [])

    def _clock_offset(self) -> float:
        return self.file.clock.now().timestamp() - self.file.clock.monotonic()

    def _check_clock(self) -> list[Request]:
        """Leases are kept by the wall clock, which all processes share; when it is set, none may end early or never."""
        jump = self._clock_offset() - self._offset
        messages, monotonic = self._tables.messages, self.file.clock.monotonic()
        if abs(jump) <= _JUMP:
            return []
        self._offset += jump
        messages.reclaim_after(monotonic + messages.longest_lease())
        return [Request(lambda tables: tables.messages.clamp_leases(), None, is_write=True)] if jump < 0 else []
