"""From ``module:attribute`` to an app, with what the command line decided taken into account."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chicory.errors import nearest
from chicory.launch import Launch, launching

if TYPE_CHECKING:
    from collections.abc import Callable

    from chicory.app import Chicory

__all__ = ["app_argument", "connection_options", "launch_from", "load_app", "plugin_option"]

_DEFAULT_ATTRIBUTE = "app"


def app_argument(command: Callable[..., Any]) -> Callable[..., Any]:
    """The argument ``APP``; ``CHICORY_APP`` may stand for it."""
    return click.argument("app", envvar="CHICORY_APP", metavar="APP", required=True)(command)


def plugin_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--plugin``, which may be repeated."""
    return click.option(
        "--plugin", "plugins", multiple=True, metavar="NAME", help="Load a plugin, and use its broker; no:NAME blocks one."
    )(command)


def connection_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--plugin``, ``--broker`` and ``--backend``."""
    for option in (
        click.option("--backend", metavar="URL", help="Where results are kept: a URL, a name, or none."),
        click.option("--broker", metavar="URL", help="Where messages go: a URL or a name."),
    ):
        command = option(command)
    return plugin_option(command)


def launch_from(
    *,
    plugins: tuple[str, ...] = (),
    broker: str | None = None,
    backend: str | None = None,
    worker: dict[str, Any] | None = None,
) -> Launch:
    """What was decided, for the app that is loaded next."""
    return Launch(plugins=plugins, broker=broker, backend=backend, worker=worker or {})


def load_app(reference: str, launch: Launch) -> Chicory:
    """The app at ``module:attribute`` (or ``module``, for ``module:app``); the working directory is importable.

    Raises:
        click.UsageError: there is no such module or attribute, or it is no app.
    """
    from chicory.app import Chicory

    module_name, _, attribute = reference.partition(":")
    attribute = attribute or _DEFAULT_ATTRIBUTE
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    with launching(launch):
        module = _import(module_name, reference)
        value: Any = module
        for name in attribute.split("."):
            if not hasattr(value, name):
                near = nearest(name, tuple(vars(value)))
                hint = f"did you mean {near!r}?" if near else f"write {module_name}:NAME_OF_YOUR_APP"
                raise click.UsageError(f"module {module_name!r} has no {name!r}: {hint}")
            value = getattr(value, name)
    if not isinstance(value, Chicory):
        raise click.UsageError(f"{reference!r} is a {type(value).__name__}, not a Chicory app")
    return value


def _import(module_name: str, reference: str) -> Any:
    try:
        return import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise click.UsageError(f"module {module_name!r} does not import: {error}") from error
        raise click.UsageError(
            f"no module {module_name!r} here (looked for {reference!r} from {Path.cwd()}): "
            "go to its directory, or install its package"
        ) from error
    except (ImportError, SyntaxError, NameError, AttributeError, TypeError, ValueError) as error:
        if isinstance(error, ValueError) and type(error).__module__.startswith("chicory"):
            raise
        raise click.UsageError(f"module {module_name!r} does not import: {type(error).__name__}: {error}") from error
