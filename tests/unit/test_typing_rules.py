"""Which annotations a value can travel under without arriving as something else."""

import collections.abc
import enum
from dataclasses import dataclass
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, Optional, TypeVar, Union

import pydantic
import pytest
from pydantic import BaseModel, Field, SecretBytes, SecretStr
from typing_extensions import TypedDict

from chicory.typing_rules import change_in_transit

T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"
    NONE = None


class Size(enum.IntEnum):
    SMALL = 1


class Shape(enum.Enum):
    POINT = (0, 0)


class Login(BaseModel):
    name: str
    password: SecretStr


class Account(BaseModel):
    logins: list[Login] = []


class Box(BaseModel, Generic[T]):
    content: T


class Hidden(BaseModel):
    shown: int = 1
    hidden: int = Field(default=2, exclude=True)


@dataclass
class Card:
    pin: SecretBytes


@pydantic.dataclasses.dataclass
class Note:
    text: str = Field(default="", exclude=True)


@dataclass
class Draft:
    text: Annotated[str, Field(exclude=True)] = ""


class Form(TypedDict):
    token: SecretStr


class Pair(NamedTuple):
    user: str
    password: SecretStr


Password = NewType("Password", SecretStr)


class Tree(BaseModel):
    children: list["Tree"] = []


@dataclass
class Chain:
    next: "Chain | None" = None


class Plain(BaseModel):
    number: int
    names: dict[str, list[str]]


@pytest.mark.parametrize(
    "annotation",
    [
        Any,
        None,
        int,
        list[int],
        dict[str, Any],
        tuple[int, ...],
        Optional[int],
        Union[int, str],
        int | None,
        Literal["a", 1],
        Annotated[int, Field(gt=0)],
        Colour,
        Size,
        Plain,
        Box[int],
        Tree,
        Chain,
        NewType("UserId", int),
    ],
    ids=str,
)
def test_what_arrives_as_it_was_sent_has_no_reason(annotation):
    assert change_in_transit(annotation) is None


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        (SecretStr, "SecretStr is hidden when it is written"),
        (SecretBytes, "SecretBytes is hidden when it is written"),
        (pydantic.Secret[int], "is hidden when it is written"),
        (SecretStr | None, "SecretStr is hidden when it is written"),
        (dict[str, list[SecretStr]], "SecretStr is hidden when it is written"),
        (Annotated[SecretStr, Field(min_length=3)], "SecretStr is hidden when it is written"),
        (Login, "SecretStr is hidden when it is written"),
        (Account, "SecretStr is hidden when it is written"),
        (Box[SecretStr], "SecretStr is hidden when it is written"),
        (Card, "SecretBytes is hidden when it is written"),
        (Form, "SecretStr is hidden when it is written"),
        (Pair, "SecretStr is hidden when it is written"),
        (Password, "SecretStr is hidden when it is written"),
        (Hidden, "field 'hidden' of Hidden is excluded when it is written"),
        (list[Hidden], "field 'hidden' of Hidden is excluded when it is written"),
        (Note, "field 'text' of Note is excluded when it is written"),
        (Draft, "field 'text' of Draft is excluded when it is written"),
        (collections.abc.Callable[[int], int], "a Callable cannot be written down"),
        (collections.abc.Callable, "a Callable cannot be written down"),
        (collections.abc.Iterator[int], "a Iterator cannot be written down"),
        (Shape, "the value of Shape.POINT is a tuple, which JSON writes otherwise"),
        (list[Shape] | None, "the value of Shape.POINT is a tuple, which JSON writes otherwise"),
    ],
    ids=[
        "secret",
        "secret bytes",
        "secret of any type",
        "optional secret",
        "secrets in containers",
        "annotated secret",
        "model",
        "model of models",
        "generic model",
        "dataclass",
        "typed dict",
        "named tuple",
        "new type",
        "excluded field",
        "excluded field inside",
        "excluded field of a pydantic dataclass",
        "excluded field of a dataclass",
        "callable",
        "bare callable",
        "iterator",
        "enum of tuples",
        "enum of tuples inside",
    ],
)
def test_what_would_arrive_changed_says_why(annotation, reason):
    assert reason in (change_in_transit(annotation) or "no reason given")
