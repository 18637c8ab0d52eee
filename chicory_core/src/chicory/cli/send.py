"""``chicory send``."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import click
import msgspec

from chicory.app import Chicory
from chicory.cli.loading import connection_options, launch_from, load_app
from chicory.cli.output import echo_json
from chicory.launch import launching


@click.command("send", context_settings={"ignore_unknown_options": True})
@click.argument("words", nargs=-1, required=True, metavar="[APP] TASK [ARGUMENT]...")
@click.option("--app", "app_option", envvar="CHICORY_APP", metavar="APP", help="module:attribute; also as the first word.")
@connection_options
@click.option("--kwarg", "kwargs", multiple=True, metavar="NAME=VALUE", help="A named argument.")
@click.option("--queue", help="To this queue instead of the task's.")
@click.option("--countdown", type=float, help="Start that many seconds from now.")
@click.option("--priority", type=click.IntRange(0, 9), help="9 is first.")
@click.option("--expires", type=float, help="Do not start later than that many seconds from now.")
@click.option("--task-id", help="An id of your own: sent twice, it runs once.")
@click.option("--wait", is_flag=True, help="Wait for the result, and print it.")
@click.option("--timeout", type=float, help="Seconds to wait at most.")
def command(
    words: tuple[str, ...],
    app_option: str | None,
    plugins: tuple[str, ...],
    broker: str | None,
    backend: str | None,
    kwargs: tuple[str, ...],
    *,
    wait: bool,
    timeout: float | None,
    **options: Any,
) -> None:
    """Call TASK by name, and print its id.

    Each ARGUMENT is JSON; what is no JSON is taken as text. Without APP the settings alone say where messages go, and the
    worker checks the arguments.
    """
    if len(words) > 1 and app_option is None and _is_app(words[0]):
        app_option, words = words[0], words[1:]
    launch = launch_from(plugins=plugins, broker=broker, backend=backend)
    if app_option:
        app = load_app(app_option, launch)
    else:
        with launching(launch):
            app = Chicory()
    name, *arguments = words
    named = dict(_split(pair) for pair in kwargs)

    async def send() -> Any:
        async with app:
            result = await app.send_task(name, [_value(text) for text in arguments], named, **options)
            if not wait:
                return result.task_id
            return await result.get(timeout)

    value = asyncio.run(send())
    if wait:
        echo_json(value)
    else:
        click.echo(value)
        if os.isatty(1):
            click.echo(f"its result: chicory result {value} --wait", err=True)


def _is_app(word: str) -> bool:
    """Whether the first word is an app and not a task: ``module:attribute``, or a module that lies here."""
    path = Path(*word.split("."))
    return ":" in word or path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def _value(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text


def _split(pair: str) -> tuple[str, Any]:
    name, equals, text = pair.partition("=")
    if not equals:
        raise click.UsageError(f"--kwarg takes NAME=VALUE, not {pair!r}")
    return name, _value(text)
