"""Binding calls to parameters, finding the context, refusing what cannot travel, and never telling the values."""

import enum
import inspect
import traceback
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal

import pydantic_core
import pytest
from pydantic import BaseModel, Field, SecretStr

from chicory import TaskContext
from chicory.codec import Arguments
from chicory.errors import EncodingError, TaskDefinitionError, ValidationError
from chicory.serializer import JSON, JsonSerializer
from chicory.signature import Signature, Unresolved

from . import postponed

SERIALIZER = JsonSerializer()


def signature_of(function):
    return Signature("tasks.it", function, TaskContext, {})


def plain(a, b=2): ...
def keyword_only(a, *, b, c=3): ...
def positional_only(a, b=2, /, c=3): ...
def rest(a, *more): ...
def extra(a, **named): ...
def everything(a, /, b, *more, c, d=4, **named): ...
def nothing(): ...
def same_name(a, /, **named): ...


CALLS = [
    (plain, (1,), {}, {"a": 1}),
    (plain, (1, 3), {}, {"a": 1, "b": 3}),
    (plain, (), {"b": 3, "a": 1}, {"a": 1, "b": 3}),
    (plain, (1,), {"b": 3}, {"a": 1, "b": 3}),
    (keyword_only, (1,), {"b": 2}, {"a": 1, "b": 2}),
    (keyword_only, (), {"a": 1, "b": 2, "c": 9}, {"a": 1, "b": 2, "c": 9}),
    (positional_only, (1,), {}, {"a": 1}),
    (positional_only, (1, 5), {"c": 6}, {"a": 1, "b": 5, "c": 6}),
    (rest, (1,), {}, {"a": 1}),
    (rest, (1, 2, 3), {}, {"a": 1, "more": [2, 3]}),
    (extra, (1,), {"x": 2, "y": 3}, {"a": 1, "named": {"x": 2, "y": 3}}),
    (extra, (), {"a": 1, "named": 5}, {"a": 1, "named": {"named": 5}}),
    (everything, (1, 2, 3), {"c": 4, "x": 5}, {"a": 1, "b": 2, "more": [3], "c": 4, "named": {"x": 5}}),
    (everything, (1,), {"b": 2, "c": 4}, {"a": 1, "b": 2, "c": 4}),
    (nothing, (), {}, {}),
    (same_name, (1,), {"a": 2}, {"a": 1, "named": {"a": 2}}),
]
every_call = pytest.mark.parametrize(
    ("function", "args", "kwargs", "bound"), CALLS, ids=[f"{row[0].__name__}-{row[1]}-{row[2]}" for row in CALLS]
)


@every_call
def test_a_call_is_bound_as_python_binds_it(function, args, kwargs, bound):
    assert signature_of(function).bind(args, kwargs) == bound


@pytest.mark.parametrize("check", [True, False], ids=["checked", "unchecked"])
@every_call
def test_a_call_arrives_at_the_parameters_it_was_made_with(function, args, kwargs, bound, check):
    signature = signature_of(function)

    sent = signature.encode(args, kwargs, check=check, serializer=SERIALIZER)
    arrived_args, arrived_kwargs = signature.decode(sent, check=check, serializer=SERIALIZER)

    as_python_does = inspect.signature(function).bind
    assert as_python_does(*arrived_args, **arrived_kwargs).arguments == as_python_does(*args, **kwargs).arguments


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "text"),
    [
        (plain, (), {}, "a: missing"),
        (plain, (1, 2, 3), {}, "takes 2 positional arguments, 3 were given"),
        (plain, (1,), {"a": 2}, "a: given twice, by position and by name"),
        (plain, (1,), {"c": 3}, "c: no such parameter"),
        (keyword_only, (1,), {}, "b: missing"),
        (keyword_only, (1, 2), {}, "takes 1 positional arguments, 2 were given"),
        (positional_only, (), {"a": 1}, "a: no such parameter"),
        (positional_only, (), {"c": 1}, "a: missing"),
        (rest, (), {}, "a: missing"),
        (rest, (1,), {"more": [2]}, "more: no such parameter"),
        (everything, (1, 2), {}, "c: missing"),
        (everything, (1, 2), {"b": 3, "c": 4}, "b: given twice, by position and by name"),
        (nothing, (1,), {}, "takes 0 positional arguments, 1 were given"),
        (nothing, (), {"x": 1}, "x: no such parameter"),
    ],
    ids=lambda value: value if isinstance(value, str) else getattr(value, "__name__", repr(value)),
)
def test_a_call_that_does_not_fit_says_where(function, args, kwargs, text):
    signature = signature_of(function)

    with pytest.raises(ValidationError) as at_home:
        signature.bind(args, kwargs)
    with pytest.raises(ValidationError) as at_delay:
        signature.encode(args, kwargs, check=False, serializer=SERIALIZER)
    sent = SERIALIZER.dumps({"args": args, "kwargs": kwargs})
    with pytest.raises(ValidationError) as at_worker:
        signature.decode(Arguments(content_type=JSON, data=sent), check=True, serializer=SERIALIZER)

    expected = f"arguments of task 'tasks.it': {text}"
    assert [str(caught.value) for caught in (at_home, at_delay, at_worker)] == [expected] * 3


# --- checking ------------------------------------------------------------------------------------


class Order(BaseModel):
    number: int
    tags: list[str] = []


def typed(order: Order, count: Annotated[int, Field(gt=0)], *names: str, **ages: int) -> list[int]: ...


@pytest.mark.parametrize(
    ("args", "kwargs", "place"),
    [
        (({"number": "x"}, 1), {}, "order.number"),
        ((Order(number=1), 0), {}, "count"),
        ((Order(number=1), "many"), {}, "count"),
        ((Order(number=1), 1, "a", 5), {}, "names.1"),
        ((Order(number=1), 1), {"tom": "old"}, "ages.tom"),
        (({"number": 1, "tags": ["a", 2]}, 1), {}, "order.tags.1"),
    ],
    ids=["in a model", "constraint", "type", "rest", "extra", "in a list of a model"],
)
def test_arguments_that_do_not_fit_their_annotations_say_where(args, kwargs, place):
    with pytest.raises(ValidationError) as refused:
        signature_of(typed).encode(args, kwargs, check=True, serializer=SERIALIZER)

    assert [where for where, _ in refused.value.problems] == [place]
    assert refused.value.task == "tasks.it"


def test_every_misfit_is_listed():
    with pytest.raises(ValidationError) as refused:
        signature_of(typed).encode(({"number": "x"}, 0), {}, check=True, serializer=SERIALIZER)

    assert [where for where, _ in refused.value.problems] == ["order.number", "count"]
    assert isinstance(refused.value, ValueError)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"null",
        b"{}",
        b'{"args":[]}',
        b'{"args":{},"kwargs":{}}',
        b'{"args":[],"kwargs":[]}',
        b"\xff",
        b'{"args":[NaN',
    ],
    ids=[
        "empty",
        "list",
        "null",
        "no fields",
        "no kwargs",
        "args of another type",
        "kwargs of another type",
        "binary",
        "cut off",
    ],
)
@pytest.mark.parametrize("check", [True, False], ids=["checked", "unchecked"])
def test_bytes_that_are_no_call_are_refused(data, check):
    with pytest.raises((EncodingError, ValidationError)):
        signature_of(plain).decode(Arguments(content_type=JSON, data=data), check=check, serializer=SERIALIZER)


def test_what_cannot_be_written_is_named_with_its_task():
    with pytest.raises(EncodingError, match=r"arguments of task 'tasks\.it': cannot be written as JSON"):
        signature_of(plain).encode((object(),), {}, check=True, serializer=SERIALIZER)
    with pytest.raises(EncodingError, match=r"the result of task 'tasks\.it': cannot be written as JSON"):
        signature_of(plain).encode_result(object(), check=True, serializer=SERIALIZER)


def test_a_result_that_does_not_fit_is_refused_where_it_is_checked():
    signature = signature_of(typed)

    with pytest.raises(ValidationError, match=r"return value of task 'tasks.it': value.1: "):
        signature.encode_result([1, "x"], check=True, serializer=SERIALIZER)


def test_a_result_that_does_not_fit_arrives_as_plain_data():
    signature = signature_of(typed)

    sent = signature.encode_result({"not": "a list"}, check=False, serializer=SERIALIZER)

    assert signature.decode_result(sent, serializer=SERIALIZER) == {"not": "a list"}


def test_without_checks_arguments_that_do_not_fit_arrive_as_plain_data():
    signature = signature_of(typed)

    sent = signature.encode((Order(number=1), "many"), {}, check=False, serializer=SERIALIZER)
    args, kwargs = signature.decode(sent, check=False, serializer=SERIALIZER)

    assert (*args, *kwargs.values()) == (Order(number=1), "many")


# --- values are never told -----------------------------------------------------------------------


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"


class Colour(enum.Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("annotation", "around"),
    [
        (int, lambda secret: secret),
        (list[int], lambda secret: [secret]),
        (Order, lambda secret: {"number": secret}),
        (Literal["a"], lambda secret: secret),
        (Colour, lambda secret: secret),
        (bool | None, lambda secret: secret),
        (Annotated[str, Field(pattern="^[0-9]+$")], lambda secret: secret),
        (Annotated[str, Field(max_length=3)], lambda secret: secret),
        (Annotated[Cat | Dog, Field(discriminator="kind")], lambda secret: {"kind": secret}),
        (dict[int, int], lambda secret: {secret: 1}),
    ],
    ids=["number", "list", "model", "literal", "enum", "union", "pattern", "length", "discriminated union", "key"],
)
def test_an_error_never_tells_the_value(annotation, around):
    def function(value): ...

    function.__annotations__ = {"value": annotation, "return": annotation}
    signature = signature_of(function)
    secret = f"hunter-{len(CALLS)}"
    sent = Arguments(content_type=JSON, data=SERIALIZER.dumps({"args": [around(secret)], "kwargs": {}}))

    caught = []
    for refuse in (
        lambda: signature.encode((around(secret),), {}, check=True, serializer=SERIALIZER),
        lambda: signature.decode(sent, check=True, serializer=SERIALIZER),
        lambda: signature.encode_result(around(secret), check=True, serializer=SERIALIZER),
    ):
        with pytest.raises(ValidationError) as refused:
            refuse()
        caught.append(refused.value)

    for error in caught:
        assert secret not in repr((str(error), error.args, error.problems))
        assert secret not in "".join(traceback.format_exception(error))


# --- context -------------------------------------------------------------------------------------


def with_context(ctx: TaskContext, x: int) -> int: ...
def quoted_context(ctx: "TaskContext", x: int) -> int: ...
def only_context(ctx: TaskContext) -> None: ...
def context_second(x: int, ctx: TaskContext) -> None: ...
def unannotated(ctx, x): ...


@pytest.mark.parametrize(
    ("function", "takes_context", "args", "bound"),
    [
        (with_context, True, (1,), {"x": 1}),
        (quoted_context, True, (1,), {"x": 1}),
        (only_context, True, (), {}),
        (unannotated, False, (0, 1), {"ctx": 0, "x": 1}),
        (postponed.imported, True, (1,), {"x": 1}),
        (postponed.imported_for_checkers_only, True, (1,), {"x": 1}),
        (postponed.quoted, True, (1,), {"x": 1}),
        (postponed.without_context, False, (1,), {"x": 1}),
        (postponed.named_like_a_context, False, (1,), {"ctx": 1}),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_the_context_is_known_by_its_annotation(function, takes_context, args, bound):
    signature = signature_of(function)

    assert signature.takes_context is takes_context
    assert signature.bind(args, {}) == bound


@pytest.mark.parametrize("function", [context_second, postponed.context_in_second_place], ids=["plain", "postponed"])
def test_a_context_in_another_place_is_refused(function):
    with pytest.raises(TaskDefinitionError):
        signature_of(function)


def test_nobody_can_pass_the_context():
    with pytest.raises(ValidationError, match="ctx: no such parameter"):
        signature_of(with_context).bind((1,), {"ctx": 2})


# --- annotations that name something -------------------------------------------------------------


def test_annotations_as_text_may_name_what_is_defined_later():
    signature = signature_of(postponed.takes_what_is_defined_later)

    sent = signature.encode(({"number": 3},), {}, check=True, serializer=SERIALIZER)

    assert signature.decode(sent, check=True, serializer=SERIALIZER) == ([postponed.Later(number=3)], {})


@pytest.mark.parametrize(
    ("function", "name"),
    [(postponed.takes_what_is_never_defined, "Never"), (postponed.takes_what_only_checkers_import, "OnlyForCheckers")],
    ids=["never defined", "imported for checkers only"],
)
def test_annotations_that_name_nothing_are_unresolved(function, name):
    with pytest.raises(Unresolved, match=f"'{name}'"):
        signature_of(function)


# --- refused at registration ---------------------------------------------------------------------


class Login(BaseModel):
    password: SecretStr


class Hidden(BaseModel):
    secret: str = Field(default="", exclude=True)


class Shape(enum.Enum):
    POINT = (0, 0)


class Opaque: ...


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        (SecretStr, "would arrive changed: SecretStr is hidden when it is written"),
        (list[Login], "would arrive changed: SecretStr is hidden when it is written"),
        (Hidden, "would arrive changed: field 'secret' of Hidden is excluded when it is written"),
        (Callable[[], int], "would arrive changed: a Callable cannot be written down"),
        (Iterator[int], "would arrive changed: a Iterator cannot be written down"),
        (Shape, "would arrive changed: the value of Shape.POINT is a tuple, which JSON writes otherwise"),
    ],
    ids=["secret", "secret inside", "excluded field", "callable", "iterator", "enum of tuples"],
)
@pytest.mark.parametrize("place", ["value", "return"])
def test_what_would_arrive_changed_is_refused_with_the_reason(annotation, reason, place):
    def function(value=None): ...

    function.__annotations__ = {place: annotation}

    with pytest.raises(TaskDefinitionError) as refused:
        signature_of(function)

    where = "its result" if place == "return" else "parameter 'value'"
    assert str(refused.value) == f"task 'tasks.it' cannot be registered: {where} {reason}"


def test_types_that_pydantic_does_not_know_are_refused_in_one_line():
    def function(value: Opaque): ...

    with pytest.raises(TaskDefinitionError, match="Opaque") as refused:
        signature_of(function)

    assert "\n" not in str(refused.value)


def test_an_alias_of_a_parameter_is_refused():
    def function(value: Annotated[int, Field(alias="number")]): ...

    with pytest.raises(TaskDefinitionError, match="parameter 'value' has an alias"):
        signature_of(function)


def test_parameters_without_annotation_take_anything():
    def function(value) -> Any: ...

    sent = signature_of(function).encode(({"a": [1, None]},), {}, check=True, serializer=SERIALIZER)

    assert pydantic_core.from_json(sent.data) == {"args": [{"a": [1, None]}], "kwargs": {}}
