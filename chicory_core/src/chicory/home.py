"""Where another process can import a task from."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from msgspec import Struct

from chicory.errors import TaskDefinitionError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Home", "home_of", "import_name"]

_MAIN = "__main__"


@final
class Home(Struct, frozen=True, kw_only=True):
    """The module that registers *task* when it is imported; *file* is its path where it is a script that was run."""

    task: str
    module: str
    file: str | None = None


def import_name(module: str) -> str:
    """The name of *module*, for ``__main__`` the one that ``-m`` or importing its file would give."""
    if module != _MAIN:
        return module
    main = sys.modules[_MAIN]
    spec = getattr(main, "__spec__", None)
    file = getattr(main, "__file__", None)
    return spec.name if spec is not None else Path(file).stem if file else module


def home_of(task: str, function: Callable[..., Any], names: Mapping[str, Any]) -> Home:
    """The home of *task*; *names* are the local variables of the code that registers it.

    Raises:
        TaskDefinitionError: importing a module again would not register it.
    """
    function = inspect.unwrap(function)
    qualname = function.__qualname__
    if "<" in qualname:  # <locals>, <lambda>
        raise TaskDefinitionError(
            task,
            f"with execution='process' a child process imports it again, and {qualname!r} cannot be imported: "
            "define it at the top level of a module",
        )
    # A module may register a function of another one: then its own top level is where that happens.
    module = str(names.get("__name__") or function.__module__)
    if module != _MAIN:
        return Home(task=task, module=module)
    name, main = import_name(_MAIN), sys.modules[_MAIN]
    if name == _MAIN:
        raise TaskDefinitionError(
            task,
            "with execution='process' a child process imports it again, and neither a prompt nor a folder that is run "
            "can be imported: define it in a module with a file of its own",
        )
    is_module = getattr(main, "__spec__", None) is not None
    return Home(task=task, module=name, file=None if is_module else str(Path(str(main.__file__)).absolute()))
