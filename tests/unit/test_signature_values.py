"""Values travel by their annotations: what was sent is what arrives, equal and of the same type."""

import enum
import math
from contextlib import suppress
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
from chicory.errors import EncodingError, ValidationError
from chicory.signature import Signature
from chicory.testing.serializers import plain_data

from .travelling import JSON, result_there_and_back, taking, there_and_back

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
    ("optional, None", UUID | None, None),
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
    with suppress(EncodingError, ValidationError):
        args, kwargs = ANYTHING.decode(Arguments(content_type=JSON.content_type, data=data), check=True, serializer=JSON)
        assert len(args) + len(kwargs) == 1


ANYTHING = taking(Any)
