"""Stopping a task at each of its awaits in turn, delivering it again, and comparing what happened with an undisturbed run."""

from __future__ import annotations

import inspect
import logging
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, final

from msgspec import Struct

from chicory.task import Task
from chicory.testing.effects import Difference, Effect, compare, watching
from chicory.testing.run import in_memory
from chicory.testing.stepping import Point, Stepper

if TYPE_CHECKING:
    from collections.abc import Awaitable, Hashable, Iterator
    from types import TracebackType
    from typing import Self

    from chicory.app import Chicory
    from chicory.testing.run import AppRun

__all__ = ["CrashCheck", "CrashFinding", "CrashReport"]

MOST_POINTS = 500
AN_HOUR = 3600.0


@final
class CrashFinding(Struct, frozen=True, kw_only=True):
    """Something that is not as in an undisturbed run, and the places of the crashes that lead to it."""

    text: str
    places: tuple[str, ...]


@final
class CrashReport(Struct, frozen=True, kw_only=True):
    """What came of a check. *points* is 0 if it was run once only, without crashes."""

    tasks: tuple[str, ...]
    points: int = 0
    findings: tuple[CrashFinding, ...] = ()
    not_reached: tuple[str, ...] = ()

    def __str__(self) -> str:
        names = ", ".join(self.tasks)
        if not self.points:
            return f"{names}: run once, without crashes"
        lines = [f"{names}: stopped at {self.points} points, {_findings(len(self.findings))}"]
        for finding in self.findings:
            lines.append(f"  {finding.text}; stopped")
            lines += [f"    {place}" for place in finding.places]
        if self.not_reached:
            lines.append("  the scenario is not the same each time; it did not come again to")
            lines += [f"    {place}" for place in self.not_reached]
        return "\n".join(lines)


class _Setting(Struct, frozen=True, kw_only=True):
    """How the passes of one check are made."""

    tasks: frozenset[str] | None
    concurrency: int
    on_restart: Callable[[], object] | None


class _Pass:
    """One run of the scenario, and what happened in it."""

    def __init__(self, run: AppRun, stepper: Stepper) -> None:
        self.run, self.stepper = run, stepper
        self.effects: list[Effect] = []
        self.error: Exception | None = None

    def all_effects(self, may_repeat: frozenset[str]) -> list[Effect]:
        """What was watched, and what tasks have sent."""
        sent = self.run.sent_by_tasks()
        return self.effects + [
            Effect(
                kind=f"sending {message.name}",
                shown=f"{message.name}({', '.join(map(repr, message.args))})",
                key=message.id,
                is_keyed=True,
                is_message=True,
                is_idempotent=message.name in may_repeat,
            )
            for message in sent
        ]

    def differences(self, first: _Pass, may_repeat: frozenset[str]) -> list[Difference]:
        """What is not as in the *first* pass."""
        found = compare(first.all_effects(may_repeat), self.all_effects(may_repeat))
        failures, before = (Counter(failure.task for failure in p.run.failures) for p in (self, first))
        for task in failures - before:
            error = next(failure.error for failure in reversed(self.run.failures) if failure.task == task)
            found.append(Difference(text=f"task {task} failed when it was delivered again: {type(error).__name__}: {error}"))
        if self.error is not None:
            found.append(Difference(text=f"the scenario raised {type(self.error).__name__}: {self.error}"))
        return found


@final
class CrashCheck:
    """Proves that an app's tasks may be delivered twice, as every task with at-least-once delivery may be.

    Watch what has effects, then check a scenario; what tasks send is watched without being named. Use it as a context manager:
    what was watched is given back at its end.
    """

    def __init__(self, app: Chicory, *, crashes: bool) -> None:
        self._app, self._crashes = app, crashes
        self._pass: _Pass | None = None
        self._may_repeat: set[str] = set()
        self._watched = ExitStack()
        self.reports: list[CrashReport] = []
        """What came of each check so far."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._watched.close()

    @property
    def run(self) -> AppRun:
        """The run that the scenario is in: to jump in time, or let a task fail."""
        if self._pass is None:
            raise RuntimeError("there is a run only while check() calls the scenario: use it in there")
        return self._pass.run

    # --- what counts -----------------------------------------------------------------------------

    def watch(
        self,
        target: object,
        name: str,
        *,
        key: str | Callable[..., Hashable] | None = None,
        idempotent: bool = False,
    ) -> None:
        """Count the calls of ``target.name`` (a function of a module, class or object), plain or async, to the end of the test.

        A call counts from its beginning. *key* says which argument (or what of them) the other side knows a repeated call by:
        a second call with the same key is then safe. *idempotent*: any second call is.

        Raises:
            AttributeError, TypeError: there is no such function.
        """
        self._watched.enter_context(watching(target, name, self._record, key=key, idempotent=idempotent))

    def may_repeat(self, *tasks: Task[..., Any] | str) -> None:
        """Messages for *tasks* may be sent twice: they do no harm then."""
        self._may_repeat |= {self._app.get_task(task if isinstance(task, str) else task.name).name for task in tasks}

    def _record(self, effect: Effect) -> None:
        if self._pass is not None:
            self._pass.effects.append(effect)

    # --- the check -------------------------------------------------------------------------------

    async def check(
        self,
        scenario: Callable[[], Awaitable[object]],
        *,
        tasks: tuple[Task[..., Any] | str, ...] = (),
        seconds: float = AN_HOUR,
        concurrency: int = 1,
        on_restart: Callable[[], object] | None = None,
        limit: int = MOST_POINTS,
    ) -> CrashReport:
        """Call *scenario* on a fresh run, do what it sends, and let *seconds* pass; with crashes, again for each of them.

        Only *tasks* are stopped (none given: all that run). *on_restart*, plain or async, is called between a crash and what
        follows, to forget what would die with the process. *concurrency* is 1, so that a finding belongs to the task that was
        stopped; raise it if tasks wait for the results of others.

        Raises:
            AssertionError: something happened twice or not at all, or a task failed, because of a crash; or no task ran.
        """
        setting = _Setting(tasks=self._names(tasks), concurrency=concurrency, on_restart=on_restart)

        async def once(target: Point | None) -> _Pass:
            async with in_memory(self._app) as run:
                with self._passing(run, setting, target) as current:
                    await scenario()
                    await run.jump(seconds)
            return current

        first = await once(None)
        return self._conclude(first, [(point, await once(point)) for point in self._points(first, limit)])

    def check_sync(
        self,
        scenario: Callable[[], object],
        *,
        tasks: tuple[Task[..., Any] | str, ...] = (),
        seconds: float = AN_HOUR,
        concurrency: int = 1,
        on_restart: Callable[[], object] | None = None,
        limit: int = MOST_POINTS,
    ) -> CrashReport:
        """`check` for tests without event loop: *scenario* is a plain function, which sends with ``delay_sync``."""
        setting = _Setting(tasks=self._names(tasks), concurrency=concurrency, on_restart=on_restart)

        def once(target: Point | None) -> _Pass:
            with in_memory(self._app) as run, self._passing(run, setting, target) as current:
                answer = scenario()
                if inspect.iscoroutine(answer):
                    answer.close()
                    raise TypeError("the scenario is async, so it did nothing: write `await chicory_crash.check(scenario)`")
                run.jump_sync(seconds)
            return current

        first = once(None)
        return self._conclude(first, [(point, once(point)) for point in self._points(first, limit)])

    # --- steps -----------------------------------------------------------------------------------

    def _names(self, tasks: tuple[Task[..., Any] | str, ...]) -> frozenset[str] | None:
        names = (self._app.get_task(task if isinstance(task, str) else task.name).name for task in tasks)
        return frozenset(names) or None

    @contextmanager
    def _passing(self, run: AppRun, setting: _Setting, target: Point | None) -> Iterator[_Pass]:
        """One pass. What its scenario raises undisturbed is the test's failure; what it raises after a crash is a finding."""
        stepper = Stepper(run.clock, run.store, setting.tasks, target)
        stepper.on_restart(setting.on_restart)
        run.probe(stepper)
        run.concurrency = setting.concurrency
        self._pass = current = _Pass(run, stepper)
        try:
            with _hushed(target):
                yield current
        except Exception as error:
            if not stepper.was_hit:
                raise
            current.error = error
        finally:
            self._pass = None

    def _points(self, first: _Pass, limit: int) -> list[Point]:
        points = first.stepper.points
        if not points:
            raise AssertionError("no task ran that could be stopped: the scenario sends none, or tasks= names others")
        if self._crashes and len(points) > limit:
            raise AssertionError(f"there are {len(points)} points to stop at: choose tasks=, or raise limit={limit}")
        return points if self._crashes else []

    def _conclude(self, first: _Pass, passes: list[tuple[Point, _Pass]]) -> CrashReport:
        places: dict[str, list[str]] = {}
        for point, current in passes:
            for difference in current.differences(first, frozenset(self._may_repeat)):
                places.setdefault(difference.text, []).append(f"{point.place}")
        report = CrashReport(
            tasks=tuple(dict.fromkeys(point.task for point in first.stepper.points)),
            points=len(passes),
            findings=tuple(CrashFinding(text=text, places=_counted(found)) for text, found in places.items()),
            not_reached=tuple(point.place for point, current in passes if not current.stepper.was_hit),
        )
        self.reports.append(report)
        if report.findings:
            raise AssertionError(f"not safe to run twice\n{report}")
        return report


def _findings(count: int) -> str:
    return {0: "no findings", 1: "1 finding"}.get(count, f"{count} findings")


@contextmanager
def _hushed(target: Point | None) -> Iterator[None]:
    """A worker that dies as asked for loses its leases, and says so; nobody needs to read that."""
    log = logging.getLogger("chicory")
    before = log.level
    if target is not None:
        log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(before)


def _counted(places: list[str]) -> tuple[str, ...]:
    """Each place once, with how often it was reached if that is more."""
    return tuple(f"{place}{f' ({count} times)' if count > 1 else ''}" for place, count in Counter(places).items())
