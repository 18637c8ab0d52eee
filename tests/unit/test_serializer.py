"""JSON as a serializer."""

import enum
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
from pydantic import BaseModel, Field

from chicory.errors import EncodingError
from chicory.serializer import JSON, JsonSerializer
from chicory.testing import SerializerSuite


class TestJson(SerializerSuite):
    serializer = JsonSerializer()


class Colour(enum.Enum):
    RED = "red"


class Order(BaseModel):
    number: int = Field(alias="no")


@dataclass
class Point:
    x: int


def test_its_content_type_is_that_of_json():
    assert JsonSerializer.content_type == JSON == "application/json"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (datetime(2026, 1, 1, tzinfo=UTC), b'"2026-01-01T00:00:00Z"'),
        (UUID(int=7), b'"00000000-0000-0000-0000-000000000007"'),
        (Path("a/b"), b'"a/b"'),
        (Colour.RED, b'"red"'),
        (Order(no=3), b'{"no":3}'),
        (Point(1), b'{"x":1}'),
        ((1, 2), b"[1,2]"),
        ({3}, b"[3]"),
    ],
    ids=["datetime", "uuid", "path", "enum", "model", "dataclass", "tuple", "set"],
)
def test_values_with_one_obvious_text_are_written_as_that(value, text):
    assert JsonSerializer().dumps(value) == text


@pytest.mark.parametrize("value", [2**64, -(10**40)], ids=["above 64 bits", "long"])
def test_whole_numbers_of_any_size_come_back(value):
    serializer = JsonSerializer()

    assert serializer.loads(serializer.dumps(value)) == value


def test_binary_data_is_written_as_base64():
    assert JsonSerializer().dumps(b"\xff\x00") in (b'"/wA="', b'"_wA="')


def test_a_value_that_contains_itself_is_refused():
    endless = []
    endless.append(endless)

    with pytest.raises(EncodingError, match="cannot be written as JSON"):
        JsonSerializer().dumps(endless)


def test_text_that_is_no_unicode_is_refused():
    with pytest.raises(EncodingError, match="cannot be written as JSON"):
        JsonSerializer().dumps("\ud800")


def test_nesting_without_end_is_refused():
    with pytest.raises(EncodingError, match="not JSON"):
        JsonSerializer().loads(b"[" * 100_000)
