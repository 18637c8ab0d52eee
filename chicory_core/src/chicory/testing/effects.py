"""What tasks do to the world, counted, and what is different when one was stopped and delivered again."""

from __future__ import annotations

import functools
import inspect
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, final

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Sequence

__all__ = ["Difference", "Effect", "compare", "watching"]


@final
class Effect(Struct, frozen=True, kw_only=True):
    """One thing that happened. Effects of one *kind* with the same *key* are the same; *is_keyed* if the world knows it."""

    kind: str
    shown: str
    key: Any
    is_keyed: bool = False
    is_idempotent: bool = False
    is_message: bool = False
    """It is a message that was sent: its key is its id, by which a broker knows it again."""


@final
class Difference(Struct, frozen=True, kw_only=True):
    """What was not as in an undisturbed run: one line for a person."""

    text: str


def compare(before: Sequence[Effect], after: Sequence[Effect]) -> list[Difference]:
    """What happened too often, or not at all, in the run *after* as compared with the undisturbed one *before*."""
    kinds = dict.fromkeys(effect.kind for effect in (*before, *after))
    found: list[Difference] = []
    for kind in kinds:
        mine, theirs = [e for e in before if e.kind == kind], [e for e in after if e.kind == kind]
        found += _compare_kind(mine, theirs)
    return found


def _compare_kind(before: list[Effect], after: list[Effect]) -> list[Difference]:
    """The same for effects of one kind: by their keys if the world knows those, else by how often there was each."""
    some = (*after, *before)[0]
    if some.is_keyed:
        once, again = {e.key: e for e in before}, {e.key: e for e in after}
        if len(again) > len(once) and not some.is_idempotent:
            last = list(again.values())[-1]
            if last.is_message:
                return [Difference(text=f"{last.shown} was sent {_times(len(again))}, not {_times(len(once))}")]
            return [Difference(text=f"{some.kind} happened with {len(again)} different keys, not {len(once)}")]
        return _missing(before, len(once), len(again))
    if some.is_idempotent:
        return _missing(before, len(before), len(after))
    counts, expected = Counter(e.key for e in after), Counter(e.key for e in before)
    repeated = {e.key: e for e in after if counts[e.key] > max(1, expected[e.key])}
    if repeated:
        return [
            Difference(text=f"{e.shown} happened {_times(counts[e.key])}, not {_times(max(1, expected[e.key]))}")
            for e in repeated.values()
        ]
    if len(after) > len(before):
        return [
            Difference(text=f"{some.kind} happened {_times(len(after))}, with other arguments each, not {_times(len(before))}")
        ]
    return _missing(before, len(before), len(after))


def _missing(before: list[Effect], expected: int, seen: int) -> list[Difference]:
    if seen >= expected:
        return []
    return [Difference(text=f"{before[0].kind} happened {_times(seen)}, not {_times(expected)}: it is lost")]


def _times(count: int) -> str:
    return {0: "not at all", 1: "once", 2: "twice"}.get(count, f"{count} times")


@contextmanager
def watching(
    target: Any,
    name: str,
    record: Callable[[Effect], object],
    *,
    key: str | Callable[..., Hashable] | None,
    idempotent: bool,
) -> Iterator[None]:
    """While this is held, each call of ``target.name`` is recorded, at its beginning, and made.

    Raises:
        AttributeError: there is nothing of that name.
        TypeError: it cannot be called.
    """
    found = inspect.getattr_static(target, name)
    function = getattr(target, name)
    if not callable(function):
        raise TypeError(f"{name!r} of {target!r} is a {type(function).__name__}, which is not called: watch a function")
    make = _maker(function, name, key, idempotent=idempotent)

    @functools.wraps(function)
    def watched(*args: Any, **kwargs: Any) -> Any:
        record(make(args, kwargs))
        return function(*args, **kwargs)

    was_its_own = name in vars(target) if hasattr(target, "__dict__") else False
    is_unbound = inspect.isclass(target) and isinstance(found, (staticmethod, classmethod))
    setattr(target, name, staticmethod(watched) if is_unbound else watched)
    try:
        yield
    finally:
        if was_its_own:
            setattr(target, name, found)
        else:
            delattr(target, name)


def _maker(
    function: Callable[..., Any], name: str, key: str | Callable[..., Hashable] | None, *, idempotent: bool
) -> Callable[[tuple[Any, ...], dict[str, Any]], Effect]:
    """How a call of *function* becomes an effect."""

    def key_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if callable(key):
            return key(*args, **kwargs)
        if key is None:
            return _shown("", args, kwargs)
        bound = inspect.signature(function).bind(*args, **kwargs)
        bound.apply_defaults()
        if key not in bound.arguments:
            raise TypeError(f"{name}() has no argument {key!r}, only {', '.join(bound.arguments)}: name one in key=")
        return bound.arguments[key]

    def make(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Effect:
        return Effect(
            kind=f"{name}()",
            shown=_shown(name, args, kwargs),
            key=key_of(args, kwargs),
            is_keyed=key is not None,
            is_idempotent=idempotent,
        )

    return make


def _shown(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    parts = [repr(arg) for arg in args] + [f"{key}={value!r}" for key, value in kwargs.items()]
    return f"{name}({', '.join(parts)})"
