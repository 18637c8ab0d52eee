"""A child process of a worker: ``python -m chicory.child``. Runs the tasks with ``execution="process"``, one at a time."""

from __future__ import annotations

import asyncio
import contextvars
import ctypes
import faulthandler
import importlib
import importlib.util
import os
import resource
import signal
import socket
import sys
import threading
import traceback
from contextlib import ExitStack
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, final

from msgspec.structs import replace

from chicory.app import Chicory
from chicory.border import Import, Progressed, Raised, Ready, Retry, Returned, Run, Setup, frame, read_order
from chicory.codec import read
from chicory.context import TaskContext
from chicory.errors import EncodingError, FinalError, RetryError, TaskDefinitionError, ValidationError
from chicory.home import Home
from chicory.invocation import decoded, encoded, max_retries_of
from chicory.launch import launching
from chicory.logs import configure_logs, get_logger, learn_facts
from chicory.loop_thread import LoopThread
from chicory.middleware import Attempt, current_attempt
from chicory.task import Task
from chicory.verdict import describe, sendable, traceback_of

if TYPE_CHECKING:
    from concurrent.futures import Future
    from types import ModuleType

    from chicory.border import Answer, Order
    from chicory.offers import ChildContext

__all__ = ["Child", "main"]

_PR_SET_PDEATHSIG = 1


@final
class Child:
    """The child's side of the border.

    Tasks run on the main thread, where C libraries and signals expect them. A thread reads orders: it sees the socket closed
    when the worker is gone, and ends the process if a task is running then, for nobody could take its result.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._orders: SimpleQueue[Order | None] = SimpleQueue()
        self._speaking = threading.Lock()
        self._is_busy = False
        self._setup: Setup | None = None
        self._tasks: dict[str, Task[..., Any]] = {}
        self._homes: dict[str, Home] = {}
        self._lives: dict[Chicory, _Life] = {}
        self._contexts: dict[Chicory, tuple[ChildContext, ...]] = {}
        self._log = get_logger("child")

    def work(self) -> None:
        """Do what the worker says, until it closes the socket."""
        threading.Thread(target=self._listen, name="chicory-orders", daemon=True).start()
        while (order := self._orders.get()) is not None:
            if isinstance(order, Setup):
                self._begin(order)
                continue
            answer = self._import(order) if isinstance(order, Import) else self._run(order)
            self._is_busy = False
            self._say(answer)
        with ExitStack() as stack:
            for app, life in self._lives.items():
                stack.callback(life.end)
                stack.callback(_disconnect, app)  # what its tasks have opened

    # --- the border ----------------------------------------------------------------------------

    def _listen(self) -> None:
        with self._socket.makefile("rb") as stream:
            while True:
                try:
                    order = read_order(stream.read)
                except ConnectionError:
                    order = None
                except Exception:  # noqa: BLE001 - said by another version of chicory, or there is no memory to hear it
                    self._log.exception("order_unreadable")
                    os._exit(1)
                if order is None and self._is_busy:
                    os._exit(1)
                self._is_busy = isinstance(order, Import | Run)
                self._orders.put(order)
                if order is None:
                    return

    def _say(self, answer: Answer) -> None:
        data = frame(answer)
        with self._speaking:
            try:
                self._socket.sendall(data)
            except OSError:
                os._exit(1)  # the worker is gone, or the task has closed what is not its own

    def _begin(self, setup: Setup) -> None:
        self._setup = setup
        sys.path[:] = setup.path
        configure_logs(setup.log_level, setup.log_format)
        if setup.memory_bytes is not None:
            _, hard = resource.getrlimit(resource.RLIMIT_AS)
            limit = setup.memory_bytes if hard == resource.RLIM_INFINITY else min(setup.memory_bytes, hard)
            resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
        self._log.debug("child_started", worker_id=setup.worker_id)

    # --- importing -----------------------------------------------------------------------------

    def _import(self, order: Import) -> Answer:
        home = order.home
        try:
            task = self._find(home)
            app: Chicory = task.app
            if app not in self._lives:
                self._lives[app] = _Life(app)
                self._contexts[app] = app.offered("chicory_child_contexts")
                learn_facts(app.offered("chicory_log_facts"))
        except BaseException as error:  # noqa: BLE001 - the edge of user code: a module may raise anything, SystemExit too
            return _raised(error, home)
        self._tasks[home.task], self._homes[home.task] = task, home
        return Ready()

    def _find(self, home: Home) -> Task[..., Any]:
        assert self._setup is not None, "a worker says Setup first"  # noqa: S101
        with launching(self._setup.launch):
            module = _imported(home)
        for value in vars(module).values():
            if isinstance(value, Task) and value.name == home.task:
                return value
            if isinstance(value, Chicory) and home.task in value.tasks:
                return value.tasks[home.task]
        raise TaskDefinitionError(
            home.task,
            f"importing module {home.module!r} defines neither this task nor an app that has it: "
            "register it at the top level of that module",
        )

    # --- running -------------------------------------------------------------------------------

    def _run(self, order: Run) -> Answer:
        task, home = self._tasks[order.task], self._homes[order.task]
        try:
            return contextvars.copy_context().run(self._call_in_contexts, task, order)
        except BaseException as error:  # noqa: BLE001 - the edge of user code: all of it is the task's failure
            if isinstance(error, MemoryError):
                traceback.clear_frames(error.__traceback__)  # they hold what there was no room for
            return _raised(error, home)

    def _call_in_contexts(self, task: Task[..., Any], order: Run) -> Returned:
        with ExitStack() as stack:
            for context in self._contexts[task.app]:
                if context.name in order.carried:
                    stack.enter_context(context.enter(order.carried[context.name]))
            return self._call(task, order)

    def _call(self, task: Task[..., Any], order: Run) -> Returned:
        app: Chicory = task.app
        document = read(order.delivery.envelope, limit=app.config.max_message_bytes)
        attempt = Attempt(delivery=order.delivery, worker_id=self._setup.worker_id if self._setup else "?", document=document)
        attempt.message = replace(document.message(), headers=order.headers)
        attempt.task, attempt.started_at = task, order.started_at
        current_attempt.set(attempt)
        attempt.args, attempt.kwargs = decoded(task, document.argument_bytes(), app.serializers)
        context = TaskContext(
            attempt.message, app=app, max_retries=max_retries_of(task), deadline=order.deadline, report=self._report
        )
        args = [context, *attempt.args] if task.signature.takes_context else attempt.args
        value = task.function(*args, **attempt.kwargs)
        try:
            return Returned(
                result=encoded(
                    task,
                    value,
                    serializer=app.serializer,
                    max_bytes=app.config.max_message_bytes,
                    keeps_results=order.keeps_results,
                )
            )
        except (ValidationError, EncodingError) as error:
            raise FinalError(str(error)) from error

    async def _report(self, done: float, total: float) -> None:
        self._say(Progressed(done=done, total=total))


@final
class _Life:
    """What plugins wrap around the life of a child, on an event loop of its own."""

    def __init__(self, app: Chicory) -> None:
        self._app = app
        self._thread = LoopThread("chicory-child")
        self._thread.start()
        self._is_over: asyncio.Event | None = None
        has_begun = threading.Event()
        self._life: Future[None] = self._thread.submit(self._live(has_begun))
        self._life.add_done_callback(lambda _: has_begun.set())
        has_begun.wait()
        if self._life.done():
            self._life.result()

    def end(self) -> None:
        """Let plugins flush and close; raises what one of them raises."""
        if self._is_over is not None and not self._life.done():
            self._thread.submit(_set(self._is_over)).result()
        self._life.result()
        self._thread.stop()

    async def _live(self, has_begun: threading.Event) -> None:
        async with self._app.lifespan("child"):
            self._is_over = asyncio.Event()
            has_begun.set()
            await self._is_over.wait()


def _disconnect(app: Chicory) -> None:
    app.run_sync(app.disconnect())


async def _set(event: asyncio.Event) -> None:
    event.set()


def _imported(home: Home) -> ModuleType:
    """The module of *home*; a script under the name of its file, so that it does not take itself for the program."""
    if home.file is None:
        return importlib.import_module(home.module)
    known = sys.modules.get(home.module)
    if known is not None and getattr(known, "__file__", None) == home.file:
        return known
    spec = importlib.util.spec_from_file_location(home.module, home.file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{home.file!r} is no Python file")
    module = sys.modules[home.module] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _raised(error: BaseException, home: Home) -> Raised:
    """*error* as text. ``ctx.fail(exc)`` and ``ctx.retry(exc=exc)`` say *exc* itself."""
    retry = None
    if isinstance(error, RetryError):
        retry = Retry(countdown=error.countdown, cause=None if error.cause is None else sendable(error.cause))
    is_final = isinstance(error, FinalError)
    shown = error.__cause__ if (is_final or retry) and error.__cause__ is not None else error
    trace = traceback_of(shown if is_final else error)
    kind, text = describe(shown)
    return Raised(kind=kind, family=_family(type(shown), home), text=text, traceback=trace, is_final=is_final, retry=retry)


def _family(kind: type[BaseException], home: Home) -> list[str]:
    """The dotted names of *kind* and its bases, as they are in the worker, where a script is ``__main__``."""
    script = home.module if home.file is not None else None
    return [f"{'__main__' if k.__module__ == script else k.__module__}.{k.__qualname__}" for k in kind.__mro__]


def _die_with(parent: int) -> None:
    """End with the worker however it ends, also while a task holds the interpreter lock and no thread could look."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # it died before it could be watched


def main() -> None:
    """Run a child; the arguments are the descriptor of its socket and the worker's process id."""
    fd, parent = int(sys.argv[1]), int(sys.argv[2])
    _die_with(parent)
    faulthandler.enable()
    for number in (signal.SIGTERM, signal.SIGINT):
        # A service manager signals all processes; the worker drains. Not SIG_IGN: what a task starts would inherit that.
        signal.signal(number, lambda *_: None)
    os.set_inheritable(fd, False)
    with socket.socket(fileno=fd) as connection:
        Child(connection).work()


if __name__ == "__main__":
    main()
