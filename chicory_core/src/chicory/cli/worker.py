"""``chicory worker``."""

from __future__ import annotations

import asyncio
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chicory.cli.loading import app_argument, connection_options, launch_from, load_app

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from chicory.app import Chicory


@click.command("worker")
@app_argument
@click.option("--workers", type=click.IntRange(min=1), help="Run that many processes, and restart those that die.")
@click.option("--concurrency", type=click.IntRange(min=1), help="Tasks running at once in each process.")
@click.option("--queue", "queues", multiple=True, help="A queue to read; the first given takes precedence.")
@click.option("--dlq", is_flag=True, help="Set messages that failed for good aside (needs the dlq plugin).")
@connection_options
@click.option("--heartbeat-interval", type=float, help="Seconds between two heartbeats.")
@click.option("--heartbeat-ttl", type=float, help="Seconds without heartbeat after which a worker counts as gone.")
@click.option("--shutdown-timeout", type=float, help="Seconds that running tasks get to finish on SIGTERM.")
@click.option(
    "--log-level",
    type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"], case_sensitive=False),
    help="The least level that is logged.",
)
@click.option("--reload", is_flag=True, help="Start anew when a source file changes (needs the extra reload).")
@click.option(
    "--reload-dir",
    "reload_dirs",
    multiple=True,
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Where --reload looks, unless here.",
)
@click.option("--lifeline", type=int, hidden=True, help="A socket to the supervisor.")
def command(
    app: str, workers: int | None, lifeline: int | None, *, reload: bool, reload_dirs: tuple[Path, ...], **options: Any
) -> None:
    """Run the tasks of APP (module:attribute) until SIGTERM or Ctrl-C, then drain.

    A second signal does not wait for running tasks, a third ends the process at once.
    """
    if reload_dirs and not reload:
        raise click.UsageError("--reload-dir says where --reload looks: give both")
    if workers is not None or reload:
        sys.exit(_supervise(app, workers or 1, options, reload_dirs or (Path.cwd(),) if reload else ()))
    launch = launch_from(
        plugins=options["plugins"], broker=options["broker"], backend=options["backend"], worker=_settings(options)
    )
    from chicory.config import WorkerConfig
    from chicory.logs import configure_logs, learn_facts
    from chicory.worker import Worker

    early = WorkerConfig().override(launch.worker)  # what loading the app has to say is to be seen too
    configure_logs(early.log_level, early.log_format)
    loaded = load_app(app, launch)
    config = loaded.config.worker.override(launch.worker)
    configure_logs(config.log_level, config.log_format)
    learn_facts(loaded.offered("chicory_log_facts"))
    worker = Worker(loaded, config)
    _run(_work(loaded, worker, lifeline))


def _settings(options: dict[str, Any]) -> dict[str, Any]:
    """The worker settings among the options; what was not given is left to environment and files."""
    names = ("concurrency", "heartbeat_interval", "heartbeat_ttl", "shutdown_timeout", "log_level")
    settings = {name: options[name] for name in names if options[name] is not None}
    if options["queues"]:
        settings["queue"] = ",".join(options["queues"])
    if options["dlq"]:
        settings["use_dead_letter_queue"] = True
    return settings


async def _work(app: Chicory, worker: Any, lifeline_fd: int | None) -> None:
    from chicory.lifeline import Lifeline

    lifeline = Lifeline(lifeline_fd, worker.request_stop) if lifeline_fd is not None else None
    on_ready = None if lifeline is None else lambda: lifeline.say_ready(worker.config.shutdown_timeout)
    try:
        await worker.run(on_ready=on_ready)
    finally:
        await app.disconnect()
        if lifeline is not None:
            lifeline.close()


def _supervise(app: str, count: int, options: dict[str, Any], watched: Sequence[Path]) -> int:
    """Run *count* processes, and others in their place when a file below *watched* changes; the exit code."""
    from chicory.cli.reload import call_on_changes, require_watchfiles
    from chicory.config import WorkerConfig
    from chicory.logs import configure_logs
    from chicory.supervisor import Supervisor, worker_command

    if watched:
        require_watchfiles()
    config = WorkerConfig().override({"log_level": options["log_level"]})
    configure_logs(config.log_level, config.log_format)

    async def supervise() -> int:
        worker = worker_command([app, *_arguments(options)], writes_bytecode=not watched)
        supervisor = Supervisor(worker, count, patient=bool(watched))
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(call_on_changes(watched, supervisor.restart)) if watched else None
            code = await supervisor.run()
            if watching is not None:
                watching.cancel()
        return code

    try:
        return asyncio.run(supervise())
    except ExceptionGroup as group:
        raise group.exceptions[0] from group


def _arguments(options: dict[str, Any]) -> list[str]:
    """The options as arguments again, for the child processes."""
    arguments: list[str] = []
    for name, value in options.items():
        flag = f"--{name.removesuffix('s') if name in ('queues', 'plugins') else name.replace('_', '-')}"
        if value is True:
            arguments.append(flag)
        elif isinstance(value, tuple):
            arguments += [part for item in value for part in (flag, item)]
        elif value not in (None, False):
            arguments += [flag, str(value)]
    return arguments


def _run(main: Coroutine[Any, Any, None]) -> None:
    """Run *main* on uvloop where that is installed."""
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    if find_spec("uvloop") is not None:
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main)
