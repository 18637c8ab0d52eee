"""From the bytes of a call to the bytes of its result: the same in a worker and in its child processes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chicory.errors import EncodingError, PayloadTooLargeError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chicory.codec import Arguments
    from chicory.serializer import Serializer
    from chicory.task import Task

__all__ = ["decoded", "encoded", "max_retries_of"]


def decoded(
    task: Task[..., Any], arguments: Arguments, serializers: Mapping[str, Serializer]
) -> tuple[list[Any], dict[str, Any]]:
    """The arguments to call the function with.

    Raises:
        ValidationError: they do not fit the parameters.
        EncodingError: the bytes cannot be read, or are of a content type that is not enabled.
    """
    serializer = serializers.get(arguments.content_type)
    if serializer is None:
        enabled = ", ".join(sorted(serializers))
        raise EncodingError(
            f"arguments of task {task.name!r} are {arguments.content_type!r}, and this worker accepts {enabled}: "
            "add it to CHICORY_ACCEPT_CONTENT if its senders are trusted"
        )
    return task.signature.decode(arguments, check=task.options_of_task.validation_mode.checks_inputs, serializer=serializer)


def encoded(
    task: Task[..., Any], value: Any, *, serializer: Serializer, max_bytes: int, keeps_results: bool
) -> Arguments | None:
    """The bytes of what the function returned; None if nobody wants them. Running the task again would not change an error.

    Raises:
        ValidationError: it does not fit the annotation, and outputs are checked.
        EncodingError: it cannot be written, or is too large.
    """
    checks = task.options_of_task.validation_mode.checks_outputs
    if not checks and (task.options_of_task.ignore_result or not keeps_results):
        return None
    result = task.signature.encode_result(value, check=checks, serializer=serializer)
    if len(result.data) > max_bytes:
        raise PayloadTooLargeError(f"the result of task {task.name!r}", len(result.data), max_bytes)
    return result


def max_retries_of(task: Task[..., Any]) -> int:
    """How often its policy may have it retried; 0 without one."""
    policy = task.options_of_task.retry_policy
    return policy.max_retries if policy else 0
