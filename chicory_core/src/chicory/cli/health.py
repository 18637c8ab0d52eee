"""``chicory health``: reads what workers wrote about themselves. Imports no app and asks nobody, so that probes are cheap."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from chicory.cli.output import echo_json
from chicory.vitals import default_folder, find_files, look_at

if TYPE_CHECKING:
    from chicory.vitals import Sighting


@click.command("health")
@click.option("--pid", type=click.IntRange(min=1), help="Only the worker of this process.")
@click.option(
    "--file",
    "chosen",
    envvar="CHICORY_WORKER_HEALTH_FILE",
    metavar="FILE",
    help="A state file, as the setting health_file names it.",
)
@click.option("--ready", is_flag=True, help="Ask for more: connected, and taking tasks.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def command(pid: int | None, chosen: str | None, *, ready: bool, as_json: bool) -> None:
    """Say whether workers on this host are healthy: all of this user's, or one.

    Exit code 0: each of them is. 1: one is not. 2: there is none.
    """
    found = _look(pid, chosen)
    if not found:
        raise click.UsageError(_nobody(pid, chosen))
    if as_json:
        echo_json(found)
    else:
        for finding in found:
            click.echo(_line(finding, ready=ready))
    sys.exit(0 if all(_is_well(finding, ready=ready) for finding in found) else 1)


def _look(pid: int | None, chosen: str | None) -> list[Sighting]:
    try:
        files = find_files(pid=pid, chosen=chosen)
    except OSError as error:
        raise click.UsageError(str(error)) from error
    found = [look_at(file) for file in files if file.exists()]
    return [finding for finding in found if pid is None or finding.pid in (pid, None)]


def _nobody(pid: int | None, chosen: str | None) -> str:
    where = chosen or str(default_folder())
    who = "no worker" if pid is None else f"no worker with pid {pid}"
    return f"{who} found ({where}): start one with `chicory worker`, or give its --file"


def _is_well(finding: Sighting, *, ready: bool) -> bool:
    return finding.ready if ready else finding.live


def _line(finding: Sighting, *, ready: bool) -> str:
    who = f"{finding.pid} {finding.worker_id}" if finding.pid is not None else finding.file
    words = ("ready", "not ready") if ready and finding.live else ("live", "not live")
    state = words[0] if _is_well(finding, ready=ready) else words[1]
    return f"{who}: {state}" + (f" ({'; '.join(finding.reasons)})" if finding.reasons else "")
