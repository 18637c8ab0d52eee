"""``chicory result``."""

from __future__ import annotations

import asyncio
from typing import Any

import click
from msgspec.structs import asdict

from chicory.app import Chicory
from chicory.cli.loading import connection_options, launch_from, load_app
from chicory.cli.output import echo_json
from chicory.launch import launching
from chicory.result import AsyncResult
from chicory.serializer import JsonSerializer


@click.command("result")
@click.argument("words", nargs=-1, required=True, metavar="[APP] TASK_ID")
@click.option("--app", "app_option", envvar="CHICORY_APP", metavar="APP", help="module:attribute; also as the first word.")
@connection_options
@click.option("--wait", is_flag=True, help="Wait until the task has ended, and print its value.")
@click.option("--timeout", type=float, help="Seconds to wait at most.")
def command(
    words: tuple[str, ...],
    app_option: str | None,
    plugins: tuple[str, ...],
    broker: str | None,
    backend: str | None,
    *,
    wait: bool,
    timeout: float | None,
) -> None:
    """Show everything known about a task; with --wait, its value. A task that failed gives its error and exit code 1."""
    if len(words) > 2 or (len(words) == 2 and app_option):  # noqa: PLR2004 - app and id
        raise click.UsageError(f"takes one task id, not {len(words)} words")
    *first, task_id = words
    launch = launch_from(plugins=plugins, broker=broker, backend=backend)
    reference = first[0] if first else app_option
    if reference:
        app = load_app(reference, launch)
    else:
        with launching(launch):
            app = Chicory()

    async def ask() -> Any:
        async with app:
            handle: AsyncResult[Any] = AsyncResult(task_id, app.backend)
            return await handle.get(timeout) if wait else asdict(await handle.info())

    echo_json(JsonSerializer().loads(JsonSerializer().dumps(asyncio.run(ask()))))
