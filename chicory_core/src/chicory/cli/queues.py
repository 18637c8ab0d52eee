"""``chicory queues``."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from chicory.broker import dead_letter_queue
from chicory.cli.loading import app_argument, connection_options, launch_from, load_app
from chicory.cli.output import echo_json, echo_table, seconds_text

if TYPE_CHECKING:
    from chicory.app import Chicory


@click.command("queues")
@app_argument
@connection_options
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def command(app: str, plugins: tuple[str, ...], broker: str | None, backend: str | None, *, as_json: bool) -> None:
    """Show what waits in the queues of APP: ready, delayed, running, dead, and the age of the oldest."""
    loaded = load_app(app, launch_from(plugins=plugins, broker=broker, backend=backend))
    rows = asyncio.run(_ask(loaded))
    if as_json:
        names = ("queue", "ready", "delayed", "running", "dead", "oldest_seconds")
        echo_json([dict(zip(names, row, strict=True)) for row in rows])
        return
    shown = [(*row[:5], seconds_text(row[5])) for row in rows]
    echo_table(("QUEUE", "READY", "DELAYED", "RUNNING", "DEAD", "OLDEST"), shown, empty="no queue yet")


async def _ask(app: Chicory) -> list[tuple[str, int, int, int, int, float | None]]:
    async with app:
        names = {*app.config.worker.queues, *(task.options_of_task.queue for task in app.tasks.values())}
        if app.broker.capabilities.browse:
            names |= set(await app.broker.queues())
        rows = []
        for name in sorted(name for name in names if not _is_dead_letters(name, names)):
            stats = await app.broker.stats(name)
            dead = (await app.broker.stats(dead_letter_queue(name))).ready
            rows.append((name, stats.ready, stats.delayed, stats.running, dead, stats.oldest_seconds))
        return rows


def _is_dead_letters(name: str, names: set[str]) -> bool:
    return any(name == dead_letter_queue(other) for other in names)
