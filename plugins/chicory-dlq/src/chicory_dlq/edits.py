"""Other arguments for a dead letter, checked against the types of its task before anything moves."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from chicory.errors import EncodingError, TaskNotFoundError, ValidationError
from chicory.plugin import Arguments
from chicory_dlq.errors import ArgumentEditError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chicory.plugin import App
    from chicory_dlq.letters import DeadLetter

__all__ = ["edited"]

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def edited(app: App, letter: DeadLetter, changes: Mapping[str, Any]) -> Arguments:
    """The arguments of *letter* with *changes* by parameter name, as they travel.

    Raises:
        ArgumentEditError: the message cannot be read, or they do not fit the parameters of its task.
        TaskNotFoundError: its task is not registered in *app*, so that nobody knows what fits.
    """
    if not letter.is_readable:
        raise ArgumentEditError(letter.id, letter.task, "its message cannot be read, so that it has no arguments to edit")
    task = app.tasks.get(letter.task)
    if task is None:
        raise TaskNotFoundError(letter.task, tuple(app.tasks))
    sent = letter.arguments
    serializer = app.serializers.get(sent.content_type)
    if serializer is None:
        reason = f"they are {sent.content_type!r}, which is not enabled here: add it to CHICORY_ACCEPT_CONTENT"
        raise ArgumentEditError(letter.id, letter.task, reason)
    try:
        call = _changed(serializer.loads(sent.data), _names(task), changes)
        arguments = Arguments(content_type=sent.content_type, data=serializer.dumps(call))
        task.signature.decode(arguments, check=task.options_of_task.validation_mode.checks_inputs, serializer=serializer)
    except (ValidationError, EncodingError) as error:
        raise ArgumentEditError(letter.id, letter.task, str(error)) from error
    return arguments


def _names(task: Any) -> list[str]:
    """The parameters that may be given by position, without the context."""
    names = [p.name for p in inspect.signature(task.function).parameters.values() if p.kind in _POSITIONAL]
    return names[1:] if task.signature.takes_context else names


def _changed(call: Any, names: list[str], changes: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(call, dict) or not isinstance(call.get("args"), list) or not isinstance(call.get("kwargs"), dict):
        raise EncodingError("they are not the arguments of a call")
    args, kwargs = list(call["args"]), dict(call["kwargs"])
    for name, value in changes.items():
        if name in names[: len(args)]:
            args[names.index(name)] = value
        else:
            kwargs[name] = value
    return {"args": args, "kwargs": kwargs}
