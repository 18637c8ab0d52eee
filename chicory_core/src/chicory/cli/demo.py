"""``chicory demo``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from chicory.demo.run import run_demo, source_files

if TYPE_CHECKING:
    from chicory.demo.report import Report


@click.command("demo")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path), required=False)
@click.option("--workers", type=click.IntRange(min=2), default=2, show_default=True, help="Worker processes.")
@click.option("--chaos/--no-chaos", default=True, help="Kill one worker half-way, or leave them alive.")
@click.option("--plugin", metavar="NAME", help="Over the server of this plugin, as its settings say, in place of a file.")
def command(folder: Path | None, workers: int, plugin: str | None, *, chaos: bool) -> None:
    """Count lines, tokens and imports of every Python file below FOLDER (default: the standard library).

    One task per file, on several worker processes and the embedded default, without any server, or over the server of a plugin.
    Half-way one worker is killed, and nothing is lost.
    """
    files = source_files(folder)
    click.echo(f"{len(files):,} files, one task each, on {workers} worker processes and {plugin or 'one SQLite file'}")
    with click.progressbar(length=len(files), label="counting", file=sys.stderr) as bar:
        shown = 0
        was_told = False

        def show(report: Report) -> None:
            nonlocal shown, was_told
            bar.update(report.ended - shown)
            shown = report.ended
            if report.killed and not was_told:
                was_told = True
                bar.label = "counting, one worker killed"

        report = run_demo(files, workers=workers, chaos=chaos, on_progress=show, plugin=plugin)
    click.echo()
    for name, value in report.rows():
        click.echo(f"{name:>13}  {value}")
    if report.lost:
        raise click.ClickException(f"{report.lost} tasks have no result")
