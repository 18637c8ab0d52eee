"""``chicory dlq``: what `DeadLetters` does, on the command line."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import wraps
from typing import TYPE_CHECKING, Any

import click
import msgspec

from chicory.cli import app_argument, connection_options, echo_json, echo_table, launch_from, load_app, seconds_text
from chicory_dlq.choice import ALL, Chosen
from chicory_dlq.dead_letters import DeadLetters
from chicory_dlq.showing import argument_text, counts, error_line, number, progress, short, whole

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from chicory_dlq.letters import DeadLetter

__all__ = ["dlq"]

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@click.group("dlq")
def dlq() -> None:
    """Look at dead letters, replay them, delete them."""


# --- options ---------------------------------------------------------------------------------------


def _moment(value: Any) -> datetime:
    """A moment as ISO 8601, or a span before now: ``90s``, ``15m``, ``6h``, ``2d``."""
    text = str(value)
    if text[:-1].replace(".", "", 1).isdigit() and text[-1:] in _UNITS:
        return datetime.now(UTC) - timedelta(seconds=float(text[:-1]) * _UNITS[text[-1]])
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        expected = "a moment (2026-03-01T12:00+00:00), or a time before now (90s, 15m, 6h, 2d)"
        raise click.BadParameter(f"takes {expected}, not {text!r}") from error
    return moment if moment.tzinfo is not None else moment.astimezone()


def _choice_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--until", type=_moment, metavar="WHEN", help="Only what died before then."),
        click.option(
            "--since", type=_moment, metavar="WHEN", help="Only what died then or later: a moment, or 15m, 6h, 2d ago."
        ),
        click.option("--error-type", metavar="NAME", help="Only with this kind of error."),
        click.option("--reason", metavar="WORD", help="Only with this reason."),
        click.option("--task", metavar="NAME", help="Only of this task."),
        click.option("--queue", metavar="NAME", help="Only from this queue."),
    ):
        command = option(command)
    return command


def _on_app(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives *command* what to do its work with: ``run(function)`` calls it with the `DeadLetters` of the connected app."""

    @wraps(command)
    def wrapped(app: str, plugins: tuple[str, ...], broker: str | None, backend: str | None, **options: Any) -> None:
        command(_runner(app, plugins, broker, backend), **options)

    return app_argument(connection_options(wrapped))


def _on_app_and_ids(command: Callable[..., Any]) -> Callable[..., Any]:
    """As `_on_app`, for a command that takes ids: the first word is the app, unless ``--app`` or ``CHICORY_APP`` names it."""

    @wraps(command)
    def wrapped(
        words: tuple[str, ...],
        app_option: str | None,
        plugins: tuple[str, ...],
        broker: str | None,
        backend: str | None,
        **options: Any,
    ) -> None:
        if app_option is None and not words:
            raise click.UsageError("name the app: module:attribute as the first word, or --app")
        app, ids = (app_option, words) if app_option is not None else (words[0], words[1:])
        command(_runner(app, plugins, broker, backend), ids=ids, **options)

    named = click.option("--app", "app_option", envvar="CHICORY_APP", metavar="APP", help="In place of the first word.")
    return click.argument("words", nargs=-1, metavar="[APP] [ID]...")(named(connection_options(wrapped)))


def _runner(app: str, plugins: tuple[str, ...], broker: str | None, backend: str | None) -> Callable[..., Any]:
    loaded = load_app(app, launch_from(plugins=plugins, broker=broker, backend=backend))

    def run(work: Callable[[DeadLetters], Awaitable[Any]]) -> Any:
        async def connected() -> Any:
            async with loaded:
                return await work(loaded.require(DeadLetters))

        return asyncio.run(connected())

    return run


_json = click.option("--json", "as_json", is_flag=True, help="For programs.")
_dry_run = click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
_yes = click.option("--yes", is_flag=True, help="Do not ask.")


def _chosen(options: dict[str, Any]) -> Chosen:
    return Chosen(**{name: options[name] for name in Chosen.__struct_fields__})


def _ids_or_filter(ids: Sequence[str], options: dict[str, Any], *, takes_all: bool) -> Sequence[str] | Chosen:
    """What a command is about: ids, or a filter, but not both, and not by mistake everything."""
    chosen = _chosen(options)
    has_filter = chosen != ALL
    if ids and (has_filter or takes_all):
        raise click.UsageError("give ids, or a filter, or --all: not two of them")
    if not ids and not has_filter and not takes_all:
        raise click.UsageError("say which: ids, a filter such as --task, or --all")
    return ids or chosen


# --- looking ---------------------------------------------------------------------------------------


@dlq.command("list")
@_on_app
@_choice_options
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="The most to show.")
@click.option("--after", metavar="CURSOR", help="Go on behind the page that ended with this cursor.")
@_json
def list_letters(run: Callable[..., Any], *, limit: int, after: str | None, as_json: bool, **options: Any) -> None:
    """List dead letters of APP: a page of them, and the cursor to go on behind it."""
    page = run(lambda letters: letters.list(_chosen(options), limit=limit, after=after))
    if as_json:
        echo_json({"letters": [short(letter) for letter in page.letters], "cursor": page.cursor})
        return
    now = datetime.now(UTC)
    rows = [
        (
            x.id,
            x.task,
            x.queue,
            x.death.reason,
            error_line(x),
            x.death.retries,
            seconds_text((now - x.death.at).total_seconds()),
        )
        for x in page.letters
    ]
    echo_table(("ID", "TASK", "QUEUE", "REASON", "ERROR", "RETRIES", "AGE"), rows, empty="no dead letter")
    if page.cursor is not None:
        click.echo(f"more: --after '{page.cursor}'", err=True)


@dlq.command("show")
@_on_app_and_ids
@click.option("--queue", metavar="NAME", help="Look into the dead letters of this queue only.")
@_json
def show(run: Callable[..., Any], *, ids: tuple[str, ...], queue: str | None, as_json: bool) -> None:
    """Show one dead letter of APP: why it died, its former deaths, its arguments as they were sent."""
    if len(ids) != 1:
        raise click.UsageError(f"takes one id, not {len(ids)}")
    letter = run(lambda letters: letters.get(ids[0], queue=queue))
    if as_json:
        echo_json(whole(letter))
        return
    death = letter.death
    for name, value in (
        ("id", letter.id),
        ("task", letter.task),
        ("queue", letter.queue),
        ("reason", death.reason),
        ("error", f"{death.error_type}: {death.error}"),
        ("at", death.at.isoformat()),
        ("worker", f"{death.worker_id} on {death.host}"),
        ("retries", "-" if death.retries is None else death.retries),
        ("delivery", death.delivery_count),
        ("arguments", argument_text(letter)),
    ):
        click.echo(f"{name:<10} {value}")
    for former in letter.history:
        click.echo(f"{'before':<10} {former.at.isoformat()} {former.reason}: {former.error_type}: {former.error}")
    if death.traceback:
        click.echo(f"\n{death.traceback.rstrip()}")


@dlq.command("stats")
@_on_app
@click.option("--queue", metavar="NAME", help="Only of this queue.")
@_json
def stats(run: Callable[..., Any], *, queue: str | None, as_json: bool) -> None:
    """Count the dead letters of APP by queue, reason and task."""
    found = run(lambda letters: letters.stats(queue))
    if as_json:
        echo_json(found)
        return
    now = datetime.now(UTC)
    rows = []
    for one in found:
        age = seconds_text((now - one.oldest_at).total_seconds())
        rows.append((one.queue, one.count, age, counts(one.reasons), counts(one.tasks)))
    echo_table(("QUEUE", "DEAD", "OLDEST", "REASONS", "TASKS"), rows, empty="no dead letter")


# --- doing -----------------------------------------------------------------------------------------


@dlq.command("replay")
@_on_app_and_ids
@_choice_options
@click.option("--all", "takes_all", is_flag=True, help="Every dead letter.")
@click.option("--set", "changes", multiple=True, metavar="NAME=VALUE", help="Another argument; JSON, or else text.")
@click.option("--to", metavar="QUEUE", help="To this queue instead of the one it came from.")
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="At most that many a second.")
@_dry_run
@_json
def replay(
    run: Callable[..., Any],
    *,
    ids: tuple[str, ...],
    takes_all: bool,
    changes: tuple[str, ...],
    to: str | None,
    rate: float | None,
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Try dead letters of APP anew: their retries are counted from 0, their history is kept.

    --set gives another value to an argument, checked against the types of the task.
    """
    which = _ids_or_filter(ids, options, takes_all=takes_all)
    arguments = dict(_split(pair) for pair in changes)

    async def work(letters: DeadLetters) -> tuple[int, int]:
        found = await _resolve(letters, which)
        if dry_run:
            for letter in found if arguments else ():
                letters.edited(letter, arguments)
            return len(found), len(found)
        with progress(len(found), "replaying") as step:
            moved = await letters.replay_many(
                [letter.id for letter in found], arguments=arguments, to=to, rate=rate, progress=step
            )
        return len(found), moved

    _report("replayed", *run(work), dry_run=dry_run, as_json=as_json)


@dlq.command("delete")
@_on_app_and_ids
@_choice_options
@_yes
@_dry_run
@_json
def delete(run: Callable[..., Any], *, ids: tuple[str, ...], yes: bool, dry_run: bool, as_json: bool, **options: Any) -> None:
    """Delete dead letters of APP, with their results. They are lost."""
    which = _ids_or_filter(ids, options, takes_all=False)

    async def count(letters: DeadLetters) -> Sequence[str]:
        return [letter.id for letter in await _resolve(letters, which)]

    found = run(count)
    _destroy(run, {"deleted": found}, yes=yes, dry_run=dry_run, as_json=as_json)


@dlq.command("purge")
@_on_app
@click.option("--queue", metavar="NAME", help="Only those from this queue.")
@click.option("--retention", is_flag=True, help="Only what CHICORY_DLQ_MAX_AGE_SECONDS and CHICORY_DLQ_MAX_COUNT give up.")
@click.option("--older-than", type=click.FloatRange(min=0), metavar="SECONDS", help="Only those that are older.")
@click.option("--keep", type=click.IntRange(min=0), metavar="COUNT", help="All but that many of each queue, the newest.")
@_yes
@_dry_run
@_json
def purge(
    run: Callable[..., Any],
    *,
    queue: str | None,
    retention: bool,
    older_than: float | None,
    keep: int | None,
    yes: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Delete all dead letters of APP, or those that a retention gives up. They are lost."""
    is_retention = retention or older_than is not None or keep is not None

    async def find(letters: DeadLetters) -> dict[str, list[str]]:
        if not is_retention:
            return {"purged": [letter.id async for letter in letters.each(Chosen(queue=queue))]}
        found: dict[str, list[str]] = {}
        for name in await letters.queues() if queue is None else [queue]:
            beyond = await letters.beyond_retention(name, max_age=older_than, max_count=keep)
            for why, ids in beyond.items():
                found.setdefault(why, []).extend(ids)
        return found

    _destroy(run, run(find), yes=yes, dry_run=dry_run, as_json=as_json)


# --- steps -----------------------------------------------------------------------------------------


async def _resolve(letters: DeadLetters, which: Sequence[str] | Chosen) -> list[DeadLetter]:
    """Those that are there; an id that is not is an error before anything is done."""
    if isinstance(which, Chosen):
        return [letter async for letter in letters.each(which)]
    return [await letters.get(task_id) for task_id in dict.fromkeys(which)]


def _destroy(run: Callable[..., Any], found: dict[str, Sequence[str]], *, yes: bool, dry_run: bool, as_json: bool) -> None:
    """Delete these ids, each under its reason, once somebody has said yes."""
    total = sum(len(ids) for ids in found.values())
    if total and not yes and not dry_run:
        if not sys.stdin.isatty():
            raise click.UsageError(f"would delete {number(total)}: say --yes, or --dry-run to see what would go")
        click.confirm(f"Delete {number(total)}? They are lost.", abort=True, err=True)

    async def work(letters: DeadLetters) -> int:
        gone = 0
        with progress(total, "deleting") as step:
            for why, ids in found.items():
                gone += await letters.delete(ids, progress=step, why=why)
        return gone

    done = total if dry_run or not total else run(work)
    _report("deleted", total, done, dry_run=dry_run, as_json=as_json)


def _report(what: str, found: int, done: int, *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        echo_json({"found": found, what: 0 if dry_run else done, "dry_run": dry_run})
        return
    if dry_run:
        click.echo(f"{number(found)} would be {what}")
        return
    gone = "" if done == found else f"; {found - done} had gone meanwhile"
    click.echo(f"{number(done)} {what}{gone}")


def _split(pair: str) -> tuple[str, Any]:
    name, equals, text = pair.partition("=")
    if not equals or not name:
        raise click.UsageError(f"--set takes NAME=VALUE, not {pair!r}")
    try:
        return name, msgspec.json.decode(text)
    except msgspec.DecodeError:
        return name, text
