"""When to try again: pure functions on values."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, final

from msgspec import Struct

from chicory.errors import RemoteError

if TYPE_CHECKING:
    from random import Random

__all__ = ["RetryBackoff", "RetryPolicy"]

ErrorKinds = tuple[type[BaseException] | str, ...]
_FACTOR_LIMIT = 1024
"""2**1024 does not fit a float: beyond it every sensible delay has long met its cap."""


class RetryBackoff(StrEnum):
    """How the wait grows from retry to retry."""

    FIXED = "fixed"
    LINEAR = "linear"
    EXPONENTIAL = "exponential"


@final
class RetryPolicy(Struct, frozen=True, kw_only=True):
    """How often, and when, a failed task is tried again.

    ``retry_delay`` and ``max_delay`` are seconds. ``retry_on`` (None: every error) and ``ignore_on`` take exception classes
    or their names, bare or dotted, and match subclasses too; ``ignore_on`` wins.

    Raises:
        ValueError: a number is negative.
    """

    max_retries: int = 3
    retry_delay: float = 1.0
    backoff: RetryBackoff = RetryBackoff.EXPONENTIAL
    max_delay: float = 3600.0
    jitter: bool = True
    retry_on: ErrorKinds | list[type[BaseException] | str] | None = None
    ignore_on: ErrorKinds | list[type[BaseException] | str] | None = None

    def __post_init__(self) -> None:
        for name in ("max_retries", "retry_delay", "max_delay"):
            if (value := getattr(self, name)) < 0:
                raise ValueError(f"{name} must be 0 or more, not {value!r}")

    def delay_before(self, retry: int, error: BaseException, rng: Random) -> float | None:
        """Seconds to wait before retry number *retry* (the first is 1) after *error*; None: do not retry.

        With jitter it is uniform between 0 and the full delay, after M. Brooker, "Exponential Backoff and Jitter", AWS
        Architecture Blog, 2015: it spreads the load of many tasks that failed together better than any narrower band.

        >>> from random import Random
        >>> RetryPolicy(jitter=False).delay_before(3, OSError(), Random(7))
        4.0
        >>> RetryPolicy(max_retries=2).delay_before(3, OSError(), Random(7)) is None
        True
        """
        if retry > self.max_retries or not self.covers(error):
            return None
        return self.delay(retry, rng)

    def delay(self, retry: int, rng: Random) -> float:
        """Seconds to wait before retry *retry* (first = 1), whatever the error was."""
        full = self.full_delay(retry)
        return rng.uniform(0, full) if self.jitter else full

    def full_delay(self, retry: int) -> float:
        """The delay before retry *retry* (first = 1) without jitter, in seconds.

        >>> [RetryPolicy(backoff=RetryBackoff.LINEAR, retry_delay=2).full_delay(n) for n in (1, 2, 3)]
        [2.0, 4.0, 6.0]
        """
        if self.backoff is RetryBackoff.FIXED:
            factor = 1.0
        elif self.backoff is RetryBackoff.LINEAR:
            factor = float(retry)
        else:
            factor = 2.0 ** min(retry - 1, _FACTOR_LIMIT - 1)
        return min(self.max_delay, self.retry_delay * factor)

    def covers(self, error: BaseException) -> bool:
        """Whether an error of this kind is retried at all.

        >>> RetryPolicy(retry_on=("ConnectionError",)).covers(BrokenPipeError())
        True
        """
        if self.ignore_on is not None and _matches(error, self.ignore_on):
            return False
        return self.retry_on is None or _matches(error, self.retry_on)


def _matches(error: BaseException, kinds: ErrorKinds | list[type[BaseException] | str]) -> bool:
    if isinstance(error, RemoteError):  # the classes themselves are in another process
        dotted = set(error.family)
        known = dotted | {name.rpartition(".")[2] for name in dotted}
        return any((kind if isinstance(kind, str) else _dotted(kind)) in known for kind in kinds)
    family = type(error).__mro__
    names = {name for kind in family for name in (kind.__name__, _dotted(kind))}
    return any(kind in names if isinstance(kind, str) else kind in family for kind in kinds)


def _dotted(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
