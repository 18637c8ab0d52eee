"""``python -m chicory.testing.chaos``: a run under faults, by hand."""

from __future__ import annotations

import asyncio
import secrets
import shlex
import sys
import tempfile
from pathlib import Path

import click

from chicory.testing.faults.chaos import Plan, run_chaos

__all__ = ["main"]


@click.command()
@click.option("--tasks", default=100_000, show_default=True, type=click.IntRange(min=100), help="How many to send.")
@click.option("--broker", metavar="URL", help="Where messages go; unless given, a new SQLite file.")
@click.option("--backend", metavar="URL", help="Where results are kept; unless given, where the messages are.")
@click.option("--workers", default=4, show_default=True, type=click.IntRange(min=2), help="Worker processes.")
@click.option("--concurrency", default=16, show_default=True, type=click.IntRange(min=1), help="Tasks at once in each.")
@click.option("--kills", default=20, show_default=True, type=click.IntRange(min=0), help="How often one gets SIGKILL.")
@click.option("--stops", default=10, show_default=True, type=click.IntRange(min=0), help="How often one gets SIGSTOP.")
@click.option("--server-kills", default=0, show_default=True, type=click.IntRange(min=0), help="How often the server gets it.")
@click.option("--server-command", metavar="COMMAND", help="Starts that server, where the broker's URL says; needed to kill it.")
@click.option("--lease", default=2.0, show_default=True, type=click.FloatRange(min=0.5), help="Seconds of a lease.")
@click.option("--seed", type=int, help="Repeats the tasks and faults of another run; unless given, a new one.")
def main(
    tasks: int,
    broker: str | None,
    backend: str | None,
    workers: int,
    concurrency: int,
    kills: int,
    stops: int,
    server_kills: int,
    server_command: str | None,
    lease: float,
    seed: int | None,
) -> None:
    """Send tasks while workers are killed and frozen; then count what was lost, doubled or left.

    Exit code 0: every promise was kept. 1: one was not; ledger and logs stay where the last line says.
    """
    if server_kills and not server_command:
        raise click.UsageError("--server-kills needs --server-command: the command that starts the server")
    folder = Path(tempfile.mkdtemp(prefix="chicory-chaos-"))
    settings = {"CHICORY_BROKER_URL": broker or f"sqlite:///{folder}/chaos.db"}
    if backend is not None:
        settings["CHICORY_BACKEND_URL"] = backend
    plan = Plan(
        tasks=tasks,
        workers=workers,
        concurrency=concurrency,
        kills=kills,
        stops=stops,
        server_kills=server_kills,
        server_command=tuple(shlex.split(server_command or "")),
        lease=lease,
        seed=secrets.randbelow(10**6) if seed is None else seed,
        settings=settings,
    )
    click.echo(f"seed {plan.seed}")
    verdict = asyncio.run(run_chaos(plan, folder, say=click.echo))
    click.echo(verdict)
    click.echo(f"ledger and logs: {folder}")
    sys.exit(0 if verdict.is_good else 1)


if __name__ == "__main__":
    main()
