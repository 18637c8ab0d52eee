"""Which annotations a value can travel under without arriving as something else."""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime as dt
import enum
import types
from decimal import Decimal
from pathlib import PurePath
from typing import Any, NewType, Union, get_args, get_origin, get_type_hints
from uuid import UUID

import pydantic
from pydantic.fields import FieldInfo
from typing_extensions import is_typeddict

__all__ = ["change_in_transit"]

_SECRETS = (pydantic.SecretStr, pydantic.SecretBytes, pydantic.Secret)
_ONE_WAY = (collections.abc.Callable, collections.abc.Iterator, collections.abc.Generator, collections.abc.AsyncIterator)
_ALIKE: dict[str, tuple[type, ...]] = {
    "text": (str, bytes, dt.date, dt.time, dt.timedelta, UUID, Decimal, PurePath),
    "a list": (list, tuple, set, frozenset),
    "an object": (dict, pydantic.BaseModel),
}
_PLAIN = (str, int, float, bool, type(None))


def change_in_transit(annotation: Any) -> str | None:
    """Why a value of this annotation would not arrive as it was sent, or None if it would.

    Looks into containers, unions, models, dataclasses and typed dicts.

    >>> change_in_transit(list[int]) is None
    True
    >>> change_in_transit(dict[str, pydantic.SecretStr])
    'SecretStr is hidden when it is written'
    """
    return _reason(annotation, set())


def _reason(annotation: Any, seen: set[int]) -> str | None:
    if id(annotation) in seen:
        return None
    seen.add(id(annotation))
    if isinstance(annotation, NewType):
        return _reason(annotation.__supertype__, seen)
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType) and (found := _reason_in_union(get_args(annotation))) is not None:
        return found
    kind = origin if isinstance(origin, type) else annotation
    if isinstance(kind, type):
        if issubclass(kind, _SECRETS):
            return f"{kind.__name__} is hidden when it is written"
        if kind in _ONE_WAY:
            return f"a {kind.__name__} cannot be written down"
        if issubclass(kind, enum.Enum):
            return _reason_in_enum(kind)
        if (found := _reason_in_fields(kind, seen)) is not None:
            return found
    return next((found for part in get_args(annotation) if (found := _reason(part, seen)) is not None), None)


def _reason_in_union(members: tuple[Any, ...]) -> str | None:
    """Two members that JSON writes alike: what is read may be the other one."""
    kinds = [kind for kind in (get_origin(member) or member for member in members) if isinstance(kind, type)]
    for shape, alike in _ALIKE.items():
        found = [kind for kind in kinds if issubclass(kind, alike) or (dict in alike and dataclasses.is_dataclass(kind))]
        first = next((kind for kind in found if kind in (str, list, tuple, set, frozenset, dict)), None)
        other = next((kind for kind in found if kind is not first), None)
        if first and other:
            return f"{first.__name__} and {other.__name__} are both written as {shape}, and one may be read as the other"
    return None


def _reason_in_enum(kind: type[enum.Enum]) -> str | None:
    for member in kind:
        if not isinstance(member.value, _PLAIN):
            return f"the value of {kind.__name__}.{member.name} is a {type(member.value).__name__}, which JSON writes otherwise"
    return None


def _reason_in_fields(kind: type, seen: set[int]) -> str | None:
    for name, annotation, info in _fields(kind):
        if info is not None and info.exclude:
            return f"field {name!r} of {kind.__name__} is excluded when it is written"
        if (found := _reason(annotation, seen)) is not None:
            return found
    return None


def _fields(kind: type) -> list[tuple[str, Any, FieldInfo | None]]:
    if issubclass(kind, pydantic.BaseModel):
        return [(name, info.annotation, info) for name, info in kind.model_fields.items()]
    is_named_tuple = issubclass(kind, tuple) and hasattr(kind, "_fields")
    if not (dataclasses.is_dataclass(kind) or is_typeddict(kind) or is_named_tuple):
        return []
    try:
        hints = get_type_hints(kind, include_extras=True)
    except (NameError, TypeError):  # pydantic resolves these itself, or says clearly why it cannot
        return []
    infos: dict[str, FieldInfo] = getattr(kind, "__pydantic_fields__", {})
    return [(name, annotation, infos.get(name) or _info_in(annotation)) for name, annotation in hints.items()]


def _info_in(annotation: Any) -> FieldInfo | None:
    return next((part for part in getattr(annotation, "__metadata__", ()) if isinstance(part, FieldInfo)), None)
