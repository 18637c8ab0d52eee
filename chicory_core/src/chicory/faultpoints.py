"""Named places at which a process can be told to die, so that a test can crash it between any two steps.

``CHICORY_FAULT=<point>:<n>`` ends the process without a word when it comes to that place for the n-th time, as SIGKILL would.
"""

from __future__ import annotations

import os
from enum import StrEnum
from typing import TYPE_CHECKING

from chicory.errors import ConfigurationError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["FAULT_EXIT", "FAULT_VARIABLE", "FaultPoint", "reach", "reacher"]

FAULT_VARIABLE = "CHICORY_FAULT"
FAULT_EXIT = 137
"""Exit code of a process that died at a fault point: that of a shell whose child got SIGKILL."""


class FaultPoint(StrEnum):
    """Where a process can be told to die."""

    BEFORE_PUBLISH = "before_publish"
    """A batch of messages is about to go to the broker."""
    AFTER_PUBLISH = "after_publish"
    """The broker has accepted a batch, and no caller knows yet."""
    AFTER_RECEIVE = "after_receive"
    """Messages are leased, and nothing has been done with them."""
    BEFORE_RUN = "before_run"
    """A task is about to be called; one that runs at most once has been removed."""
    AFTER_RUN = "after_run"
    """A task has returned or raised, and nobody knows."""
    BEFORE_SETTLE = "before_settle"
    """A batch of settlements and notes is about to go to the store."""
    BETWEEN_STORE_AND_SETTLE = "between_store_and_settle"
    """Results are stored, their messages not settled: only where broker and backend are two stores."""
    AFTER_SETTLE = "after_settle"
    """The store has answered a batch, and the worker has not taken note."""
    BEFORE_RECORD = "before_record"
    """The end of a task that ran at most once is about to be stored."""
    IN_DRAIN = "in_drain"
    """The worker drains: what has not started is about to go back, what runs still runs."""


def reacher(setting: str | None) -> Callable[[FaultPoint], None]:
    """What to call at each point; it does nothing unless *setting*, as ``<point>:<n>``, names that point.

    Raises:
        ConfigurationError: *setting* names no point, or no number from 1 on.
    """
    if not setting:
        return _pass
    name, _, times = setting.partition(":")
    if name not in list(FaultPoint):
        known = [str(point) for point in FaultPoint]
        near = nearest(name, tuple(known))
        hint = f"did you mean {near!r}?" if near else f"there are {', '.join(known)}"
        raise ConfigurationError(f"{FAULT_VARIABLE}={setting}: there is no fault point {name!r}: {hint}")
    if not times.isascii() or not times.isdigit() or int(times) < 1:
        raise ConfigurationError(f"{FAULT_VARIABLE}={setting}: {times!r} is no number from 1 on: write {name}:1")
    return _counting(FaultPoint(name), int(times))


def _pass(_point: FaultPoint) -> None:
    """Nobody asked for a fault."""


def _counting(target: FaultPoint, left: int) -> Callable[[FaultPoint], None]:
    def reach(point: FaultPoint) -> None:
        nonlocal left
        if point is target:
            left -= 1
            if left == 0:
                os._exit(FAULT_EXIT)

    return reach


reach = reacher(os.environ.get(FAULT_VARIABLE))
"""Call it at each point: looked up once, since some are passed for each task."""
