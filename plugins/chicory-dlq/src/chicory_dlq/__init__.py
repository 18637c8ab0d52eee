"""Dead letters for chicory: what failed for good is set aside, looked at, and replayed."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chicory_dlq.choice import Chosen, DeadLetterPage, DeadLetterStats
    from chicory_dlq.dead_letters import DeadLetters
    from chicory_dlq.errors import ArgumentEditError, DeadLetterNotFoundError
    from chicory_dlq.letters import DeadLetter, Death
    from chicory_dlq.settings import DlqConfig

_HOME = {
    "ArgumentEditError": "errors",
    "Chosen": "choice",
    "DeadLetter": "letters",
    "DeadLetterNotFoundError": "errors",
    "DeadLetterPage": "choice",
    "DeadLetterStats": "choice",
    "DeadLetters": "dead_letters",
    "Death": "letters",
    "DlqConfig": "settings",
}
__all__ = [
    "ArgumentEditError",
    "Chosen",
    "DeadLetter",
    "DeadLetterNotFoundError",
    "DeadLetterPage",
    "DeadLetterStats",
    "DeadLetters",
    "Death",
    "DlqConfig",
]


def __getattr__(name: str) -> object:
    # A worker that only sets messages aside imports nothing of the commands.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    return value
