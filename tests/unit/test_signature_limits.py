"""Values that JSON cannot carry: refused, or they arrive; never something else instead."""

import math
import pickle
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from pydantic import BaseModel, ConfigDict
from typing_extensions import TypedDict

from chicory.codec import Arguments
from chicory.errors import EncodingError, TaskDefinitionError

from .travelling import JSON, result_there_and_back, taking, there_and_back

NOON = datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=UTC)


class Shop(BaseModel):
    name: str


class Reading(BaseModel):
    model_config = ConfigDict(ser_json_inf_nan="constants")
    value: float


class Span(NamedTuple):
    start: datetime
    seconds: float


@dataclass
class Point:
    x: float


# --- numbers that are none -----------------------------------------------------------------------


class NotConstant(BaseModel):
    value: float | None = None
    values: list[float | None] = []
    by_name: dict[str, float | None] = {}


@dataclass
class Sample:
    value: float | None


class Measured(TypedDict):
    value: float


@pytest.mark.parametrize(
    ("annotation", "value", "inside"),
    [
        (float, math.nan, lambda v: v),
        (list[float], [1.0, math.nan], lambda v: v[1]),
        (dict[str, float], {"a": math.nan}, lambda v: v["a"]),
        (Any, [math.nan], lambda v: v[0]),
        (Reading, Reading(value=math.nan), lambda v: v.value),
        (Span, Span(NOON, math.nan), lambda v: v.seconds),
        (Measured, {"value": math.nan}, lambda v: v["value"]),
    ],
    ids=["bare", "list", "dict", "anything", "model that says so", "named tuple", "typed dict"],
)
@pytest.mark.parametrize("by", ["position", "name", "result"])
def test_nan_arrives(annotation, value, inside, by):
    signature = taking(annotation)

    if by == "result":
        arrived = result_there_and_back(signature, value)
    else:
        arrived = there_and_back(signature, *(((value,), {}) if by == "position" else ((), {"value": value})))

    assert math.isnan(inside(arrived))
    assert type(arrived) is type(value)


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (NotConstant, NotConstant(value=math.nan)),
        (NotConstant, NotConstant(values=[math.inf])),
        (NotConstant, NotConstant(by_name={"a": -math.inf})),
        (list[NotConstant], [NotConstant(value=math.nan)]),
        (Sample, Sample(math.nan)),
        (list[Sample], [Sample(math.inf)]),
        (Point, Point(math.nan)),
    ],
    ids=["field", "list in a model", "dict in a model", "list of models", "dataclass", "list of dataclasses", "required field"],
)
def test_a_number_that_would_become_null_is_refused_or_arrives(annotation, value):
    signature = taking(annotation)

    for travel in (lambda: there_and_back(signature, (value,), {}), lambda: result_there_and_back(signature, value)):
        with suppress(EncodingError):
            assert repr(travel()) == repr(value)


# --- one text, two types -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (str | datetime, NOON),
        (str | UUID, UUID(int=1)),
        (str | UUID, str(UUID(int=1))),
        (str | Path, Path("a")),
        (str | Decimal, Decimal("1.5")),
        (str | bytes, b"a"),
        (date | datetime, datetime(2026, 1, 1, tzinfo=UTC)),
        (float | Decimal, Decimal("1.5")),
        (list[int] | tuple[int, ...], (1, 2)),
        (list[int] | set[int], {1}),
        (dict[str, Any] | Shop, Shop(name="x")),
    ],
    ids=[
        "text or datetime",
        "text or uuid",
        "text like a uuid",
        "text or path",
        "text or decimal",
        "text or bytes",
        "date or datetime",
        "float or decimal",
        "list or tuple",
        "list or set",
        "dict or model",
    ],
)
def test_a_union_that_json_cannot_tell_apart_is_refused_or_arrives(annotation, value):
    with suppress(TaskDefinitionError):
        signature = taking(annotation)
        arrived = there_and_back(signature, (value,), {})
        returned = result_there_and_back(signature, value)

        assert (arrived, type(arrived)) == (value, type(value))
        assert (returned, type(returned)) == (value, type(value))


def test_a_signature_needs_no_pickle():
    with pytest.raises((EncodingError, ValueError)):
        there_and_back(taking(bytes), (object(),), {})
    trap = Arguments(content_type=JSON.content_type, data=pickle.dumps({"args": [1], "kwargs": {}}))
    with pytest.raises(EncodingError):
        taking(Any).decode(trap, check=True, serializer=JSON)
