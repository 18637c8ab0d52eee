"""``app.require(DeadLetters)``: look at dead letters, replay them, delete them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, final

from chicory.plugin import App, Envelope, Event, QueueBrowser, dead_letter_queue, get_logger
from chicory_dlq.choice import ALL, Chosen, DeadLetterPage, DeadLetterStats, doomed, stats_of
from chicory_dlq.edits import edited
from chicory_dlq.errors import DeadLetterNotFoundError
from chicory_dlq.letters import DeadLetter, read_letter, revive
from chicory_dlq.records import Records, browser_of

if TYPE_CHECKING:
    from datetime import datetime

    from chicory.plugin import Arguments
    from chicory_dlq.settings import DlqConfig

__all__ = ["DeadLetters", "Progress"]

_PAGE = 100
_SUFFIX = dead_letter_queue("")
_BEYOND = "|"
"""Between queue and cursor; no queue has it in its name."""

Progress = Callable[[int], object]
"""Called with how many dead letters were dealt with since the last call."""


@final
class DeadLetters:
    """The dead letters of an app, through its broker's `QueueBrowser`. *queue* is always where a message came from.

    Every method connects by itself, and may raise ``BrokerConnectionError``; ``CapabilityError`` where the broker cannot
    browse.
    """

    def __init__(self, app: App, config: DlqConfig) -> None:
        self._app, self._config = app, config
        self._records = Records(app)
        self._log = get_logger("dlq")

    # --- looking -----------------------------------------------------------------------------------

    async def queues(self) -> Sequence[str]:
        """The queues that have, or had, dead letters, sorted."""
        names = await self._browser.queues()
        return [name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX) and name != _SUFFIX]

    async def list(
        self,
        chosen: Chosen = ALL,
        *,
        limit: int = _PAGE,
        after: str | None = None,
    ) -> DeadLetterPage:
        """Up to *limit* of the *chosen* ones, beginning behind the cursor *after*."""
        queues = await self._queues_of(chosen)
        start, _, cursor = (after or "").partition(_BEYOND)
        letters: list[DeadLetter] = []
        for queue in queues:
            if queue < start:
                continue
            position = (cursor or None) if queue == start else None
            while True:
                page = await self._browser.list_messages(
                    dead_letter_queue(queue), limit=max(limit - len(letters), 1), after=position
                )
                letters += _fitting(chosen, (message.envelope for message in page.messages))
                position = page.cursor
                if len(letters) >= limit:
                    return DeadLetterPage(letters=letters, cursor=_next(queues, queue, position))
                if position is None:
                    break
        return DeadLetterPage(letters=letters)

    async def each(self, chosen: Chosen = ALL) -> AsyncIterator[DeadLetter]:
        """All of the *chosen* ones, page by page. What is set aside meanwhile may or may not be among them."""
        cursor: str | None = None
        while True:
            page = await self.list(chosen, after=cursor)
            for letter in page.letters:
                yield letter
            cursor = page.cursor
            if cursor is None:
                return

    async def get(self, task_id: str, *, queue: str | None = None) -> DeadLetter:
        """The dead letter of that id, of *queue* or of any.

        Raises:
            DeadLetterNotFoundError: there is none.
        """
        queues = await self.queues() if queue is None else [queue]
        for name in queues:
            for message in await self._browser.get_messages(dead_letter_queue(name), [task_id]):
                letter = read_letter(message.envelope)
                if letter is not None:
                    return letter
        raise DeadLetterNotFoundError(task_id, tuple(dead_letter_queue(name) for name in queues))

    async def count(self, chosen: Chosen = ALL) -> int:
        """How many are *chosen*; reads them all."""
        number = 0
        async for _ in self.each(chosen):
            number += 1
        return number

    async def stats(self, queue: str | None = None) -> Sequence[DeadLetterStats]:
        """The numbers of each queue that has dead letters, or of *queue*; reads them all."""
        found = []
        for name in await self.queues() if queue is None else [queue]:
            letters = [letter async for letter in self.each(Chosen(queue=name))]
            stats = stats_of(name, letters)
            found += [stats] if stats is not None else []
        return found

    # --- replaying ---------------------------------------------------------------------------------

    async def replay(
        self,
        task_id: str,
        *,
        queue: str | None = None,
        arguments: Mapping[str, Any] | None = None,
        to: str | None = None,
    ) -> bool:
        """Try one anew, perhaps with other *arguments* (by parameter name) or in another queue; False if it was gone.

        Raises:
            DeadLetterNotFoundError: there is none.
            ArgumentEditError: *arguments* do not fit; it stays.
            TaskNotFoundError: *arguments* cannot be checked, for its task is not registered here.
        """
        letter = await self.get(task_id, queue=queue)
        changed = edited(self._app, letter, arguments) if arguments else None
        return bool(await self._move([letter], to, {letter.id: changed} if changed is not None else {}))

    async def replay_many(
        self,
        chosen: Chosen | Sequence[str] = ALL,
        *,
        arguments: Mapping[str, Any] | None = None,
        to: str | None = None,
        rate: float | None = None,
        progress: Progress | None = None,
    ) -> int:
        """Try anew those of these ids, or the *chosen* ones, at most *rate* a second; return how many this call moved.

        Each is moved in one step, so that two that replay at once share the work, and one that is killed leaves the rest.
        What fails again comes back, and is not replayed again by this call.

        Raises:
            ArgumentEditError: *arguments* do not fit one of them: it and those behind it stay.
        """
        if rate is not None and rate <= 0:
            raise ValueError(f"rate must be more than 0 a second, not {rate!r}")
        size = _PAGE if rate is None else max(1, min(_PAGE, int(rate)))
        moved = 0
        async for batch in self._batches(chosen, size):
            changed = {letter.id: edited(self._app, letter, arguments) for letter in batch} if arguments else {}
            moved += len(await self._move(batch, to, changed))
            if progress is not None:
                progress(len(batch))
            if rate is not None:
                await self._app.clock.sleep(len(batch) / rate)
        return moved

    def edited(self, letter: DeadLetter, arguments: Mapping[str, Any]) -> Arguments:
        """The arguments that *letter* would be replayed with; raises as `replay` does."""
        return edited(self._app, letter, arguments)

    async def _move(self, letters: Sequence[DeadLetter], to: str | None, changed: Mapping[str, Arguments]) -> set[str]:
        now, moved = self._app.clock.now(), set()
        by_queue: dict[str, dict[str, Envelope]] = {}
        for letter in letters:
            arguments = changed.get(letter.id)
            envelope = revive(letter, queue=to or letter.queue, arguments=arguments, now=now, remember=self._config.history)
            by_queue.setdefault(letter.envelope.queue, {})[letter.id] = envelope
        for queue, envelopes in by_queue.items():
            await self._records.before_replay(envelopes.values())
            gone = await self._browser.move(queue, envelopes)
            await self._records.after_replay(queue, envelopes, gone)
            moved |= gone
        self._say("dead_letter.replayed", [letter for letter in letters if letter.id in moved])
        return moved

    # --- deleting ----------------------------------------------------------------------------------

    async def delete(self, chosen: Chosen | Sequence[str], *, progress: Progress | None = None, why: str = "deleted") -> int:
        """Delete these ids, or the *chosen* ones, with their results; return how many went. They are lost.

        Each is told as an event ``dead_letter.deleted`` and logged, with *why* as its reason.
        """
        number = 0
        async for batch in self._batches(chosen, _PAGE):
            gone = await asyncio.gather(*(self._delete_one(letter) for letter in batch))
            deleted = [letter for letter, went in zip(batch, gone, strict=True) if went]
            await self._records.after_delete(deleted)
            self._say("dead_letter.deleted", deleted, why)
            number += len(deleted)
            if progress is not None:
                progress(len(batch))
        return number

    async def purge(self, queue: str | None = None, *, progress: Progress | None = None) -> int:
        """Delete all dead letters of *queue*, or of all queues; return how many went. They are lost."""
        return await self.delete(Chosen(queue=queue), progress=progress, why="purged")

    async def retain(
        self,
        queue: str | None = None,
        *,
        max_age: float | None = None,
        max_count: int | None = None,
        progress: Progress | None = None,
    ) -> int:
        """Delete what is older than *max_age* seconds, and the oldest beyond the newest *max_count* of each queue.

        Unless given, both are as ``CHICORY_DLQ_MAX_AGE_SECONDS`` and ``CHICORY_DLQ_MAX_COUNT`` say, and nothing is deleted if
        nothing says so. Each is told as by `delete`, with ``age`` or ``count`` for its reason. Return how many went.
        """
        number = 0
        for name in await self.queues() if queue is None else [queue]:
            for why, ids in (await self.beyond_retention(name, max_age=max_age, max_count=max_count)).items():
                number += await self.delete(ids, progress=progress, why=why)
        return number

    async def beyond_retention(
        self, queue: str, *, max_age: float | None = None, max_count: int | None = None
    ) -> Mapping[str, Sequence[str]]:
        """The ids that `retain` would delete of *queue*, by reason."""
        age = self._config.max_age_seconds if max_age is None else max_age
        most = self._config.max_count if max_count is None else max_count
        moments = [(letter.death.at, letter.id) async for letter in self.each(Chosen(queue=queue))]
        found: dict[str, list[str]] = {}
        for task_id, why in doomed(moments, now=self._app.clock.now(), max_age=age, max_count=most):
            found.setdefault(why, []).append(task_id)
        return found

    async def _delete_one(self, letter: DeadLetter) -> bool:
        return await self._browser.delete_messages(letter.envelope.queue, [letter.id]) > 0

    # --- steps -------------------------------------------------------------------------------------

    @property
    def _browser(self) -> QueueBrowser:
        return browser_of(self._app)

    async def _queues_of(self, chosen: Chosen) -> Sequence[str]:
        return await self.queues() if chosen.queue is None else [chosen.queue]

    async def _batches(self, chosen: Chosen | Sequence[str], size: int) -> AsyncIterator[Sequence[DeadLetter]]:
        """These, in batches that may be taken away before the next is looked for.

        Their ids are listed first: what fails again while it is replayed comes back behind, and would make it endless.
        """
        for queue, ids in (await self._ids_of(chosen)).items():
            for start in range(0, len(ids), size):
                messages = await self._browser.get_messages(dead_letter_queue(queue), ids[start : start + size])
                letters = _fitting(ALL, (message.envelope for message in messages))
                if letters:
                    yield letters

    async def _ids_of(self, chosen: Chosen | Sequence[str]) -> Mapping[str, Sequence[str]]:
        """By queue, the ids of these; of ids that are given, all may be in each queue."""
        if not isinstance(chosen, Chosen):
            ids = tuple(dict.fromkeys(chosen))
            return dict.fromkeys(await self.queues(), ids)
        found: dict[str, list[str]] = {}
        async for letter in self.each(chosen):
            found.setdefault(letter.queue, []).append(letter.id)
        return found

    def _say(self, kind: str, letters: Sequence[DeadLetter], reason: str | None = None) -> None:
        now: datetime = self._app.clock.now()
        for letter in letters:
            why = reason or letter.death.reason
            self._log.info(kind.replace(".", "_"), task_id=letter.id, task=letter.task, queue=letter.queue, reason=why)
            self._app.tell(
                Event(
                    kind=kind,
                    at=now,
                    task_id=letter.id,
                    task=letter.task,
                    queue=letter.queue,
                    retries=letter.death.retries,
                    reason=why,
                    seconds=max(now - letter.death.at, timedelta()).total_seconds(),
                )
            )


def _fitting(chosen: Chosen, envelopes: Any) -> Sequence[DeadLetter]:
    letters = (read_letter(envelope) for envelope in envelopes)
    return [letter for letter in letters if letter is not None and chosen.fits(letter)]


def _next(queues: Sequence[str], queue: str, position: str | None) -> str | None:
    """The cursor behind *position* in *queue*: in the next one if there is no more here; None at the very end."""
    if position is not None:
        return f"{queue}{_BEYOND}{position}"
    later = [name for name in queues if name > queue]
    return f"{later[0]}{_BEYOND}" if later else None
