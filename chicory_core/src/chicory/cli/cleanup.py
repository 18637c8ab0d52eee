"""``chicory cleanup``."""

from __future__ import annotations

import asyncio

import click

from chicory.cli.loading import app_argument, connection_options, launch_from, load_app


@click.command("cleanup")
@app_argument
@connection_options
@click.option("--stale-seconds", type=float, default=60.0, show_default=True, help="Without a sign of life for that long.")
def command(app: str, plugins: tuple[str, ...], broker: str | None, backend: str | None, stale_seconds: float) -> None:
    """Forget the workers of APP that are gone. No message is lost: theirs come again."""
    loaded = load_app(app, launch_from(plugins=plugins, broker=broker, backend=backend))

    async def clean() -> tuple[int, int]:
        async with loaded:
            queues = {loaded.config.worker.queues, *((t.options_of_task.queue,) for t in loaded.tasks.values())}
            names = sorted({name for group in queues for name in group})
            consumers = sum([await loaded.broker.cleanup_stale_clients(name, stale_seconds) for name in names])
            workers = await loaded.backend.cleanup_stale_clients(stale_seconds) if loaded.backend else 0
            return workers, consumers

    workers, consumers = asyncio.run(clean())
    click.echo(f"{_count(workers, 'worker')} and {_count(consumers, 'consumer')} forgotten")


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
