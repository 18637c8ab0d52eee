"""``chicory workers``."""

from __future__ import annotations

import asyncio

import click

from chicory.cli.loading import app_argument, connection_options, launch_from, load_app
from chicory.cli.output import echo_json, echo_table, seconds_text
from chicory.errors import BackendNotConfiguredError
from chicory.message import WorkerStats


@click.command("workers")
@app_argument
@connection_options
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def command(app: str, plugins: tuple[str, ...], broker: str | None, backend: str | None, *, as_json: bool) -> None:
    """Show the workers of APP that live, and what they do."""
    loaded = load_app(app, launch_from(plugins=plugins, broker=broker, backend=backend))
    if loaded.backend is None:
        raise BackendNotConfiguredError

    async def ask() -> list[WorkerStats]:
        async with loaded:
            assert loaded.backend is not None, "checked above"  # noqa: S101
            return await loaded.backend.get_active_workers()

    found = asyncio.run(ask())
    if as_json:
        echo_json(found)
        return
    headers = ("WORKER", "HOST", "PID", "QUEUES", "ACTIVE", "OF", "DONE", "FAILED", "UP")
    rows = [
        (
            w.worker_id,
            w.hostname,
            w.pid,
            w.queue,
            w.active_tasks,
            w.concurrency,
            w.tasks_processed,
            w.tasks_failed,
            seconds_text(w.uptime_seconds),
        )
        for w in found
    ]
    echo_table(headers, rows, empty="no worker lives")
