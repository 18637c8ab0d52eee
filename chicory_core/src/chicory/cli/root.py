"""The group of all commands: finds them, and turns errors into one line and an exit code."""

from __future__ import annotations

import sys
import traceback
from importlib import import_module
from typing import TYPE_CHECKING, Any, final

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["cli", "main"]

_COMMANDS = {
    "worker": "run a worker, or several",
    "workers": "who lives, and what they do",
    "cleanup": "forget workers that are gone",
    "plugins": "what is installed, and what it offers",
    "plugin": "write a plugin of your own",
    "doctor": "what will go wrong, and how to mend it",
    "queues": "what waits where",
    "send": "call a task by name",
    "result": "the result of a task",
    "health": "whether the workers on this host are well",
    "demo": "real work on several worker processes, no server needed",
}
_TRACEBACK = "--traceback"
_EXHAUSTED_EXIT = 71
"""Of a worker that went since its threads hang: its supervisor restarts it."""


@final
class _Root(click.Group):
    """Commands of the core are imported one by one; those of plugins only when help or an unknown name asks for them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        self._add_plugin_commands()
        return [*_COMMANDS, *sorted(self.commands.keys() - _COMMANDS.keys())]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in _COMMANDS:
            command: click.Command = import_module(f"chicory.cli.{cmd_name}").command
            return command
        if cmd_name not in self.commands:
            self._add_plugin_commands()
        return self.commands.get(cmd_name)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError:
            near = import_module("chicory.errors").nearest(args[0], tuple(self.list_commands(ctx)))
            hint = f"did you mean {near!r}?" if near else "see `chicory --help`"
            raise click.UsageError(f"no such command {args[0]!r}: {hint}", ctx) from None

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        taken = name or cmd.name
        if taken in _COMMANDS or taken in self.commands:
            whose = "chicory itself" if taken in _COMMANDS else "another plugin"
            raise ValueError(f"the command {taken!r} is taken by {whose}")
        super().add_command(cmd, name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, self._summary(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def _summary(self, ctx: click.Context, name: str) -> str:
        if name in _COMMANDS:
            return _COMMANDS[name]
        command = self.get_command(ctx, name)
        return command.get_short_help_str() if command else ""

    def _add_plugin_commands(self) -> None:
        """Ask the plugins, once. Most installations have no plugin with a command, and then nothing heavy is imported."""
        if not getattr(self, "_has_asked", False):
            self._has_asked = True
            import_module("chicory.cli.extension").add_commands(self)


@click.group(cls=_Root, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="chicory-core", prog_name="chicory")
@click.option(_TRACEBACK, is_flag=True, expose_value=False, help="Show where an error comes from; may stand anywhere.")
def cli() -> None:
    """A distributed task queue whose every outside part is a plugin."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line. Exit codes: 0 well, 1 it failed, 2 wrong use or configuration, 71 a worker's threads hang."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    end = given.index("--") if "--" in given else len(given)
    shows_more = _TRACEBACK in given[:end]
    args = [a for a in given[:end] if a != _TRACEBACK] + given[end:]
    try:
        code: Any = cli.main(args, prog_name="chicory", standalone_mode=False)
    except click.exceptions.Exit as leave:
        code = leave.exit_code
    except click.Abort:
        code = 130
    except click.ClickException as error:
        code = _fail(error.format_message(), error.exit_code, error, shows_more=shows_more)
    except Exception as error:  # noqa: BLE001 - whatever it is, the user gets a line that says it
        code = _fail_with(error, shows_more=shows_more)
    sys.exit(code if isinstance(code, int) else 0)


def _fail_with(error: Exception, *, shows_more: bool) -> int:
    errors = import_module("chicory.errors")
    if isinstance(error, errors.ConfigurationError | errors.TaskDefinitionError):
        return _fail(str(error), 2, error, shows_more=shows_more)
    if isinstance(error, errors.ThreadsExhaustedError):
        return _fail(str(error), _EXHAUSTED_EXIT, error, shows_more=shows_more)
    if isinstance(error, errors.ChicoryError | TimeoutError):
        return _fail(str(error), 1, error, shows_more=shows_more)
    return _fail(f"{type(error).__name__}: {error} (--traceback shows where)", 1, error, shows_more=shows_more)


def _fail(message: str, code: int, error: Exception, *, shows_more: bool) -> int:
    if shows_more:
        traceback.print_exception(error)
    click.echo(f"chicory: {' '.join(message.split())}", err=True)
    return code
