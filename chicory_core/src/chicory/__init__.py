"""chicory: a distributed task queue whose every outside part is a plugin."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chicory.app import Chicory
    from chicory.config import BackendConfig, BrokerConfig, ChicoryConfig, WorkerConfig
    from chicory.context import TaskContext
    from chicory.errors import (
        BackendConnectionError,
        BackendNotConfiguredError,
        BrokerConnectionError,
        ChicoryError,
        MaxRetriesExceededError,
        ResultNotFoundError,
        RetryError,
        TaskFailedError,
        TaskNotFoundError,
        ValidationError,
    )
    from chicory.message import (
        BackendType,
        BrokerType,
        DeliveryMode,
        TaskMessage,
        TaskResult,
        TaskState,
        ValidationMode,
        WorkerStats,
    )
    from chicory.options import TaskOptions
    from chicory.result import AsyncResult
    from chicory.retry import RetryBackoff, RetryPolicy
    from chicory.task import Task
    from chicory.worker import Worker

_HOME = {
    "app": ("Chicory",),
    "config": ("BackendConfig", "BrokerConfig", "ChicoryConfig", "WorkerConfig"),
    "context": ("TaskContext",),
    "errors": (
        "BackendConnectionError",
        "BackendNotConfiguredError",
        "BrokerConnectionError",
        "ChicoryError",
        "MaxRetriesExceededError",
        "ResultNotFoundError",
        "RetryError",
        "TaskFailedError",
        "TaskNotFoundError",
        "ValidationError",
    ),
    "message": (
        "BackendType",
        "BrokerType",
        "DeliveryMode",
        "TaskMessage",
        "TaskResult",
        "TaskState",
        "ValidationMode",
        "WorkerStats",
    ),
    "options": ("TaskOptions",),
    "result": ("AsyncResult",),
    "retry": ("RetryBackoff", "RetryPolicy"),
    "task": ("Task",),
    "worker": ("Worker",),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "AsyncResult",
    "BackendConfig",
    "BackendConnectionError",
    "BackendNotConfiguredError",
    "BackendType",
    "BrokerConfig",
    "BrokerConnectionError",
    "BrokerType",
    "Chicory",
    "ChicoryConfig",
    "ChicoryError",
    "DeliveryMode",
    "MaxRetriesExceededError",
    "ResultNotFoundError",
    "RetryBackoff",
    "RetryError",
    "RetryPolicy",
    "Task",
    "TaskContext",
    "TaskFailedError",
    "TaskMessage",
    "TaskNotFoundError",
    "TaskOptions",
    "TaskResult",
    "TaskState",
    "ValidationError",
    "ValidationMode",
    "Worker",
    "WorkerConfig",
    "WorkerStats",
]


def __getattr__(name: str) -> object:
    # Looked up when first used: `chicory --help` and plugins' modules need not wait for what they do not need.
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value
