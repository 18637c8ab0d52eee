"""``chicory doctor``."""

from __future__ import annotations

import asyncio
import sys
import warnings
from typing import TYPE_CHECKING

import click

from chicory.cli.loading import app_argument, connection_options, launch_from, load_app
from chicory.cli.output import echo_json
from chicory.doctor import Diagnosis, examine, no_app, worst
from chicory.errors import ChicoryError
from chicory.offers import FindingLevel
from chicory.settings import ConfigurationWarning

if TYPE_CHECKING:
    from collections.abc import Sequence

_COLOURS = {FindingLevel.OK: "green", FindingLevel.WARNING: "yellow", FindingLevel.ERROR: "red"}


@click.command("doctor")
@app_argument
@connection_options
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option("--strict", is_flag=True, help="Let warnings fail too.")
def command(
    app: str, plugins: tuple[str, ...], broker: str | None, backend: str | None, *, as_json: bool, strict: bool
) -> None:
    """Look for what will go wrong with APP, and say how to mend it. Sends no message.

    Exit code 0: nothing is wrong. 1: there are errors (with --strict: or warnings).
    """
    found = _examine(app, plugins, broker, backend)
    if as_json:
        echo_json(found)
    else:
        _echo(found)
    bad = worst(found)
    sys.exit(1 if bad is FindingLevel.ERROR or (strict and bad is FindingLevel.WARNING) else 0)


def _examine(app: str, plugins: tuple[str, ...], broker: str | None, backend: str | None) -> list[Diagnosis]:
    module = app.partition(":")[0]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", ConfigurationWarning)
        try:
            loaded = load_app(app, launch_from(plugins=plugins, broker=broker, backend=backend))
        except click.UsageError as error:
            return [no_app(module, error.format_message())]
        except ChicoryError as error:
            return [no_app(module, str(error))]
        except Exception as error:  # noqa: BLE001 - whatever the user's module raises, it is the finding
            return [no_app(module, f"module {module!r} does not import: {type(error).__name__}: {error}")]
    texts = [str(w.message) for w in said if issubclass(w.category, ConfigurationWarning)]
    broken = {info.name for info in loaded.plugins if info.state == "broken"}  # these are found with the plugins
    return asyncio.run(examine(loaded, [text for text in texts if not any(f"plugin {name!r}" in text for name in broken)]))


def _echo(found: Sequence[Diagnosis]) -> None:
    width = max(len(diagnosis.check) for diagnosis in found)
    for diagnosis in found:
        level = click.style(f"{diagnosis.level:<7}", fg=_COLOURS[diagnosis.level])
        click.echo(f"{level}  {diagnosis.check:<{width}}  {diagnosis.what}")
        if diagnosis.fix:
            click.echo(f"{'':7}  {'':{width}}  fix: {diagnosis.fix}")
    counts = {level: sum(diagnosis.level is level for diagnosis in found) for level in FindingLevel}
    click.echo(f"{_count(counts[FindingLevel.ERROR], 'error')}, {_count(counts[FindingLevel.WARNING], 'warning')}")


def _count(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"
