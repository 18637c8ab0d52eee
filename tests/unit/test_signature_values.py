"""Values travel by their annotations: what was sent is what arrives, equal and of the same type."""

import enum
import math
import pickle
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Generic, Literal, NamedTuple, NotRequired, Optional, TypeVar
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AliasChoices, BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from chicory import TaskContext
from chicory.codec import Arguments
from chicory.errors import EncodingError, TaskDefinitionError
from chicory.serializer import JsonSerializer
from chicory.signature import Signature
from chicory.testing.serializers import plain_data

JSON = JsonSerializer()
T = TypeVar("T")


class Line(BaseModel):
    sku: str
    price: Decimal


class Order(BaseModel):
    id: UUID
    placed: datetime
    lines: list[Line] = []
    note: str | None = None


class Page(BaseModel, Generic[T]):
    items: list[T]
    next: Optional["Page[T]"] = None


class Aliased(BaseModel):
    model_config = ConfigDict(populate_by_name=True)
    order_id: int = Field(alias="orderId")
    both: str = Field(default="", validation_alias=AliasChoices("first", "second"), serialization_alias="first")


class Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)
    number: int
    when: datetime
    data: bytes = b""


class Shop(BaseModel):
    name: str


class Person(BaseModel):
    age: int


class Reading(BaseModel):
    model_config = ConfigDict(ser_json_inf_nan="constants")
    value: float


@dataclass
class Point:
    x: float
    y: float = 0.0
    tags: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Route:
    stops: tuple[Point, ...]
    length: timedelta


class Address(TypedDict):
    street: str
    since: NotRequired[date]


class Span(NamedTuple):
    start: datetime
    seconds: float = 0.0


class Colour(enum.Enum):
    RED = "red"
    NUMBER = 7


class Size(enum.IntEnum):
    SMALL = 1


class Word(enum.StrEnum):
    YES = "yes"


NOON = datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=UTC)
INDIA = timezone(timedelta(hours=5, minutes=30))
ORDER = Order(id=UUID(int=5), placed=NOON, lines=[Line(sku="a", price=Decimal("1.10"))])

VALUES = [
    ("model", Line, Line(sku="a", price=Decimal("1.10"))),
    ("nested model", Order, ORDER),
    ("generic model", Page[Line], Page[Line](items=ORDER.lines, next=Page[Line](items=[]))),
    ("generic model of plain values", Page[int], Page[int](items=[1])),
    ("model with alias", Aliased, Aliased(order_id=3, both="x")),
    ("strict model", Strict, Strict(number=1, when=NOON, data=b"plain")),
    ("dataclass", Point, Point(1.5, tags=["a"])),
    ("nested dataclass", Route, Route((Point(1.0), Point(2.0)), timedelta(hours=1))),
    ("typed dict", Address, {"street": "x", "since": date(2026, 1, 1)}),
    ("typed dict with a key left out", Address, {"street": "x"}),
    ("named tuple", Span, Span(NOON, 2.5)),
    ("datetime", datetime, NOON),
    ("datetime elsewhere", datetime, NOON.astimezone(INDIA)),
    ("datetime without zone", datetime, NOON.replace(tzinfo=None)),
    ("date", date, date(2024, 2, 29)),
    ("time", time, time(1, 2, 3, 4)),
    ("time with zone", time, time(1, 2, tzinfo=UTC)),
    ("timedelta", timedelta, timedelta(days=400, microseconds=1)),
    ("negative timedelta", timedelta, timedelta(days=-1, microseconds=3)),
    ("uuid", UUID, UUID(int=2**127 + 1)),
    ("decimal", Decimal, Decimal("1.10")),
    ("long decimal", Decimal, Decimal("12345678901234567890.000000000000000001")),
    ("enum", Colour, Colour.RED),
    ("enum by number", Colour, Colour.NUMBER),
    ("int enum", Size, Size.SMALL),
    ("text enum", Word, Word.YES),
    ("text in bytes", bytes, b"plain"),
    ("binary bytes", bytes, b"\xff\x00\xfe>?"),
    ("empty bytes", bytes, b""),
    ("bytes in a list", list[bytes], [b"\xff", b"a"]),
    ("bytes in a dict", dict[str, bytes], {"a": b"\xff\xfe\xfd"}),
    ("optional bytes", bytes | None, b"\xff\x00"),
    ("set", set[int], {1, 2}),
    ("frozenset", frozenset[str], frozenset({"a", "b"})),
    ("fixed tuple", tuple[int, str, datetime], (1, "a", NOON)),
    ("variadic tuple", tuple[int, ...], (1, 2, 3)),
    ("empty tuple", tuple[int, ...], ()),
    ("optional, given", Optional[UUID], UUID(int=1)),
    ("optional, None", Optional[UUID], None),
    ("union, number", int | str, 1),
    ("union, digits", int | str, "1"),
    ("union, true", bool | int, True),
    ("union, one", bool | int, 1),
    ("union, float", int | float, 1.0),
    ("model union, first", Shop | Person, Shop(name="x")),
    ("model union, second", Shop | Person, Person(age=3)),
    ("model union in a list", list[Shop | Person | None], [Person(age=3), None, Shop(name="x")]),
    ("models in a list", list[Line], ORDER.lines),
    ("models in a dict", dict[str, Line], {"a": ORDER.lines[0]}),
    ("dict by number", dict[int, str], {1: "a"}),
    ("dict by enum", dict[Word, int], {Word.YES: 1}),
    ("dict by datetime", dict[datetime, int], {NOON: 1}),
    ("literal", Literal["a", 1], 1),
    ("constrained", Annotated[int, Field(gt=0)], 5),
    ("path", Path, Path("a/b.txt")),
    ("pure path", PurePosixPath, PurePosixPath("/a")),
    ("infinity", float, math.inf),
    ("minus infinity", float, -math.inf),
    ("infinities in a list", list[float], [math.inf, 1.0]),
    ("complex", complex, 1 + 2j),
    ("None", None, None),
    ("text", str, "grüße \u2028 \x00 🎈"),
    ("the word NaN", str, "NaN and Infinity"),
    ("long number", int, 10**40),
    ("true", bool, True),
    ("anything", Any, {"a": [1, 2.5, None, True, {"b": "c"}]}),
    ("object", object, ["a", 1]),
]
every_value = pytest.mark.parametrize(("annotation", "value"), [row[1:] for row in VALUES], ids=[row[0] for row in VALUES])


def taking(annotation):
    """The signature of a task that takes and returns *annotation*."""

    def function(value): ...

    function.__annotations__ = {"value": annotation, "return": annotation}
    return Signature("tasks.echo", function, TaskContext, {})


def there_and_back(signature, args, kwargs, *, check=True, serializer=JSON):
    sent = signature.encode(args, kwargs, check=check, serializer=serializer)
    arrived_args, arrived_kwargs = signature.decode(sent, check=check, serializer=serializer)
    (arrived,) = (*arrived_args, *arrived_kwargs.values())
    return arrived


def result_there_and_back(signature, value, *, check=False, serializer=JSON):
    sent = signature.encode_result(value, check=check, serializer=serializer)
    return signature.decode_result(sent, serializer=serializer)


class Packed:
    """A serializer of another content type, so that values take the way around."""

    content_type = "application/x-packed"

    def dumps(self, value):
        return b"packed:" + JSON.dumps(value)

    def loads(self, data):
        return JSON.loads(data.removeprefix(b"packed:"))


@every_value
def test_an_argument_by_position_arrives_as_it_was_sent(annotation, value):
    arrived = there_and_back(taking(annotation), (value,), {})

    assert (arrived, type(arrived)) == (value, type(value))


@every_value
def test_an_argument_by_name_arrives_as_it_was_sent(annotation, value):
    arrived = there_and_back(taking(annotation), (), {"value": value})

    assert (arrived, type(arrived)) == (value, type(value))


@every_value
def test_an_argument_arrives_without_checks_too(annotation, value):
    arrived = there_and_back(taking(annotation), (value,), {}, check=False)

    assert (arrived, type(arrived)) == (value, type(value))


@every_value
def test_a_result_arrives_as_it_was_returned(annotation, value):
    arrived = result_there_and_back(taking(annotation), value)

    assert (arrived, type(arrived)) == (value, type(value))


@every_value
def test_a_checked_result_arrives_as_it_was_returned(annotation, value):
    arrived = result_there_and_back(taking(annotation), value, check=True)

    assert (arrived, type(arrived)) == (value, type(value))


@every_value
def test_values_arrive_through_another_serializer(annotation, value):
    signature = taking(annotation)

    arrived = there_and_back(signature, (value,), {}, serializer=Packed())
    returned = result_there_and_back(signature, value, serializer=Packed())

    assert (arrived, type(arrived)) == (value, type(value))
    assert (returned, type(returned)) == (value, type(value))


def test_rest_and_extra_arguments_arrive_as_their_types():
    def function(first: date, *rest: UUID, **named: Line): ...

    signature = Signature("tasks.echo", function, TaskContext, {})
    args, kwargs = (date(2026, 1, 1), UUID(int=1), UUID(int=2)), {"a": ORDER.lines[0]}

    sent = signature.encode(args, kwargs, check=True, serializer=JSON)

    assert signature.decode(sent, check=True, serializer=JSON) == (list(args), kwargs)


def test_plain_data_is_made_into_its_type_where_it_is_checked():
    arrived = there_and_back(taking(Line), ({"sku": "a", "price": "1.10"},), {})

    assert arrived == Line(sku="a", price=Decimal("1.10"))


def test_every_binary_value_arrives():
    signature = taking(bytes)
    value = bytes(range(256)) * 3

    assert there_and_back(signature, (value,), {}) == value
    assert there_and_back(signature, (), {"value": value}) == value
    assert result_there_and_back(signature, value) == value


@given(value=plain_data)
def test_any_plain_data_arrives(value):
    assert there_and_back(ANYTHING, (), {"value": value}) == value
    assert result_there_and_back(ANYTHING, value) == value


@given(data=st.binary(max_size=200))
def test_any_bytes_are_a_call_or_refused(data):
    try:
        args, kwargs = ANYTHING.decode(Arguments(content_type=JSON.content_type, data=data), check=True, serializer=JSON)
    except (EncodingError, ValueError) as refused:
        assert str(refused)
    else:
        assert len(args) + len(kwargs) == 1


ANYTHING = taking(Any)


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
        try:
            arrived = travel()
        except EncodingError as refused:
            assert "NaN or an infinity" in str(refused)
        else:
            assert repr(arrived) == repr(value)


# --- one text, two types -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (str | datetime, NOON),
        (str | UUID, UUID(int=1)),
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
    try:
        signature = taking(annotation)
    except TaskDefinitionError as refused:
        assert "would arrive changed" in str(refused)
        return

    arrived = there_and_back(signature, (value,), {})
    returned = result_there_and_back(signature, value)

    assert (arrived, type(arrived)) == (value, type(value))
    assert (returned, type(returned)) == (value, type(value))


def test_a_signature_needs_no_pickle():
    with pytest.raises((EncodingError, ValueError)):
        there_and_back(taking(bytes), (object(),), {})
    trap = Arguments(content_type=JSON.content_type, data=pickle.dumps({"args": [1], "kwargs": {}}))
    with pytest.raises(EncodingError):
        ANYTHING.decode(trap, check=True, serializer=JSON)
