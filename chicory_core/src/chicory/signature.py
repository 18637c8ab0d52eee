"""What a task takes and gives: binding calls to its parameters, and values to bytes by its annotations."""

from __future__ import annotations

import dataclasses
import inspect
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, NotRequired, cast, final, get_type_hints

import msgspec
import pydantic
import pydantic_core
from msgspec import Raw, Struct
from pydantic import ConfigDict, TypeAdapter
from pydantic.errors import PydanticSchemaGenerationError, PydanticUndefinedAnnotation, PydanticUserError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticSerializationError, SchemaSerializer, SchemaValidator
from pydantic_core.core_schema import CoreConfig
from typing_extensions import TypedDict

from chicory.codec import Arguments
from chicory.errors import EncodingError, TaskDefinitionError, ValidationError
from chicory.serializer import JSON
from chicory.typing_rules import change_in_transit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from chicory.serializer import Serializer

__all__ = ["Form", "Signature", "Unresolved"]

_SETTINGS: Final = ConfigDict(ser_json_inf_nan="constants", ser_json_bytes="base64", val_json_bytes="base64")
_FORM: Final = CoreConfig(
    ser_json_inf_nan="constants", ser_json_bytes="base64", val_json_bytes="base64", hide_input_in_errors=True
)
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Unresolved(Exception):  # noqa: N818 - not an error: the annotations name something that may still be defined
    """The annotations cannot be resolved yet."""


class _Call(Struct):
    args: list[Raw]
    kwargs: dict[str, Raw]


class _Sketch(Struct):
    args: Raw
    kwargs: dict[str, Raw]


_read_call = msgspec.json.Decoder(_Call).decode
_read_sketch = msgspec.json.Decoder(_Sketch).decode
_read_list = msgspec.json.Decoder(list[Raw]).decode
_read_dict = msgspec.json.Decoder(dict[str, Raw]).decode
_write = msgspec.json.Encoder().encode


@final
class Form:
    """How values of one annotation are checked, written and read: pydantic's rules with chicory's settings."""

    def __init__(self, annotation: Any) -> None:
        schema = TypeAdapter(annotation).core_schema
        self._validator = SchemaValidator(schema, _FORM)
        self._serializer = SchemaSerializer(schema, _FORM)

    def check(self, value: Any) -> Any:
        """*value* as the annotation has it; raises ``pydantic_core.ValidationError`` if it does not fit."""
        return self._validator.validate_python(value)

    def write(self, value: Any) -> bytes:
        """*value* as JSON; raises ``EncodingError`` if it cannot be written, or would be read back as another value."""
        try:
            data = self._serializer.to_json(value, by_alias=True, round_trip=True, warnings=False)
        except (PydanticSerializationError, RecursionError) as error:
            raise EncodingError(f"cannot be written as JSON: {error}") from error
        if b"null" in data and _loses_number(value):
            raise EncodingError(
                "a model holds NaN or an infinity, which it writes as null: "
                "set ser_json_inf_nan='constants' in its model_config"
            )
        return data

    def read(self, data: bytes) -> Any:
        """The value that was written; raises ``pydantic_core.ValidationError``."""
        return self._validator.validate_json(bytes(data))


def _loses_number(value: Any, *, writes_null: bool = False) -> bool:
    """Whether a model or dataclass in *value* holds a number that its own JSON settings turn into null."""
    if isinstance(value, float):
        return writes_null and (value - value) != 0
    if isinstance(value, dict):
        return any(_loses_number(item, writes_null=writes_null) for item in value.values())
    if isinstance(value, (list, tuple, set, frozenset)):
        return any(_loses_number(item, writes_null=writes_null) for item in value)
    if isinstance(value, pydantic.BaseModel):
        settings: Any = value.model_config
    elif dataclasses.is_dataclass(value):
        settings = getattr(value, "__pydantic_config__", {})
    else:
        return False
    nulls = settings.get("ser_json_inf_nan", "null") == "null"
    return any(_loses_number(item, writes_null=nulls) for item in vars(value).values())


@final
class Signature:
    """One function's parameters and result.

    Arguments travel as they were passed (``args`` and ``kwargs``), each written by its parameter's annotation.

    Raises:
        Unresolved: an annotation names something that is not defined yet.
        TaskDefinitionError: an annotation that values cannot travel under, with the reason.
    """

    def __init__(self, task: str, function: Callable[..., Any], context: type, names: Mapping[str, Any]) -> None:
        self.task = task
        hints = _hints(function, {context.__name__: context, **names})
        parameters = list(inspect.signature(function).parameters.values())
        self.takes_context = bool(parameters) and hints.get(parameters[0].name) is context
        if self.takes_context:
            parameters = parameters[1:]
        self._names = [p.name for p in parameters if p.kind in _POSITIONAL]
        self._required = frozenset(p.name for p in parameters if p.default is p.empty and p.kind not in _VARIADIC)
        self._positional_only = frozenset(p.name for p in parameters if p.kind is p.POSITIONAL_ONLY)
        self._by_name = frozenset(p.name for p in parameters if p.kind not in _VARIADIC) - self._positional_only
        self._rest = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), None)
        self._extra = next((p.name for p in parameters if p.kind is p.VAR_KEYWORD), None)
        self._is_plain = not (self._positional_only or self._rest or self._extra)
        self._all_positional = self._required <= set(self._names)
        self._is_row = self._is_plain and self._by_name == set(self._names)
        fields = {p.name: self._field(p, hints.get(p.name, Any)) for p in parameters}
        result = hints.get("return", Any)
        self._refuse_change("its result", result)
        self._fields, self._returns = fields, result
        self._parameters = self._form(fields)
        self._result = self._form({"value": result})

    @cached_property
    def _row(self) -> Form:
        """All arguments by position, as one JSON array: the usual call, at half the cost of one by name."""
        types = tuple(self._fields[name] for name in self._names)
        return Form(tuple[types] if types else tuple[()])  # type: ignore[valid-type] # made at run time

    # --- arguments -----------------------------------------------------------------------------

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments by parameter name; those of ``*args`` as a list and of ``**kwargs`` as a dict under their names.

        Raises:
            ValidationError: one is missing, is given twice, or is surplus.
        """
        bound = dict(zip(self._names, args, strict=False))
        if not kwargs and len(args) == len(self._names) and self._all_positional:  # the usual call, at half the cost
            return bound
        if len(args) > len(self._names):
            if self._rest is None:
                raise self._misfit("", f"takes {len(self._names)} positional arguments, {len(args)} were given")
            bound[self._rest] = list(args[len(self._names) :])
        extra: dict[str, Any] = {}
        for name, value in kwargs.items():
            if name in bound and name in self._by_name:
                raise self._misfit(name, "given twice, by position and by name")
            if name in self._by_name:
                bound[name] = value
            elif self._extra is not None:
                extra[name] = value
            else:
                raise self._misfit(name, "no such parameter")
        if extra:
            bound[cast("str", self._extra)] = extra
        if not self._required <= bound.keys():
            missing = next(name for name in (*self._names, *sorted(self._by_name)) if name in self._required - bound.keys())
            raise self._misfit(missing, "missing")
        return bound

    def encode(self, args: Sequence[Any], kwargs: Mapping[str, Any], *, check: bool, serializer: Serializer) -> Arguments:
        """The bytes of a call.

        Raises:
            ValidationError: the arguments do not fit the parameters, or (with *check*) their annotations.
            EncodingError: one of them cannot be written.
        """
        try:
            data = self._written_row(args, check=check) if self._is_row and not kwargs else None
            if data is None:
                data = self._written(args, kwargs, check=check)
        except EncodingError as error:
            raise EncodingError(f"arguments of task {self.task!r}: {error}") from error
        return _with_serializer(data, serializer)

    def _written_row(self, args: Sequence[Any], *, check: bool) -> bytes | None:
        """The usual call, all by position; None if something does not fit, which `_written` can explain."""
        if len(args) != len(self._names):
            return None
        try:
            row = self._row.check(tuple(args)) if check else tuple(args)
        except pydantic_core.ValidationError:
            return None
        return b'{"args":' + self._row.write(row) + b',"kwargs":{}}'

    def _written(self, args: Sequence[Any], kwargs: Mapping[str, Any], *, check: bool) -> bytes:
        bound = self.bind(args, kwargs)
        if check:
            try:
                bound = self._parameters.check(bound)
            except pydantic_core.ValidationError as error:
                raise self._invalid("arguments", error) from None
        return self._as_called(self._parameters.write(bound), len(args))

    def decode(self, arguments: Arguments, *, check: bool, serializer: Serializer) -> tuple[list[Any], dict[str, Any]]:
        """The positional and named arguments to call the function with.

        Raises:
            ValidationError: they do not fit the parameters, or (with *check*) their annotations.
            EncodingError: the bytes cannot be read.
        """
        if check and self._is_row and (row := self._read_row(arguments)) is not None:
            return row, {}
        bound = self._bound_json(arguments, serializer)
        try:
            values: dict[str, Any] = self._parameters.read(bound) if check else _read_what_fits(self._parameters, bound)
        except pydantic_core.ValidationError as error:
            raise self._invalid("arguments", error) from None
        if self._is_plain:
            return [], values
        return self._spread(values)

    def _read_row(self, arguments: Arguments) -> list[Any] | None:
        """The arguments of a call that gave them all by position; None if it is another, or does not fit."""
        if arguments.content_type != JSON:
            return None
        try:
            sketch = _read_sketch(arguments.data)
            return None if sketch.kwargs else list(self._row.read(sketch.args))
        except (msgspec.MsgspecError, pydantic_core.ValidationError):
            return None  # the general way knows what is wrong, and where

    def _as_called(self, data: bytes, given: int) -> bytes:
        """Arguments by name, as JSON, in the form ``{"args": […], "kwargs": {…}}`` in which they were passed."""
        try:
            fields = _read_dict(data)
        except msgspec.MsgspecError:  # NaN or an infinity: not JSON to everybody
            return pydantic_core.to_json(self._as_called_plain(pydantic_core.from_json(data), given), inf_nan_mode="constants")
        args = [fields.pop(name) for name in self._names[:given]]
        if self._rest in fields:
            args += _read_list(fields.pop(self._rest))
        if self._extra in fields:
            fields.update(_read_dict(fields.pop(self._extra)))
        return _write(_Call(args=args, kwargs=fields))

    def _as_called_plain(self, fields: dict[str, Any], given: int) -> dict[str, Any]:
        args = [fields.pop(name) for name in self._names[:given]]
        args += fields.pop(self._rest, []) if self._rest else []
        extra = fields.pop(self._extra, {}) if self._extra else {}
        return {"args": args, "kwargs": {**fields, **extra}}

    def _bound_json(self, arguments: Arguments, serializer: Serializer) -> bytes:
        if arguments.content_type == JSON:
            try:
                call = _read_call(arguments.data)
            except msgspec.MsgspecError:
                pass  # NaN, an infinity, or not a call at all: the slower way knows
            else:
                return _write(self.bind(call.args, call.kwargs))
        plain = serializer.loads(arguments.data)
        if not isinstance(plain, dict) or not isinstance(plain.get("args"), list) or not isinstance(plain.get("kwargs"), dict):
            raise EncodingError(f"arguments of task {self.task!r}: not of the form {{'args': [...], 'kwargs': {{...}}}}")
        return pydantic_core.to_json(self.bind(plain["args"], plain["kwargs"]), inf_nan_mode="constants")

    def _spread(self, values: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Bound values as ``*args, **kwargs`` for the call itself."""
        rest = values.pop(self._rest, []) if self._rest else []
        extra = values.pop(self._extra, {}) if self._extra else {}
        args = []
        for name in self._names:
            if name not in values or not (rest or name in self._positional_only):
                break
            args.append(values.pop(name))
        return [*args, *rest], {**values, **extra}

    # --- result --------------------------------------------------------------------------------

    def encode_result(self, value: Any, *, check: bool, serializer: Serializer) -> Arguments:
        """The bytes of a return value.

        Raises:
            ValidationError: with *check*, it does not fit the annotation.
            EncodingError: it cannot be written.
        """
        wrapped: dict[str, Any] = {"value": value}
        if check:
            try:
                wrapped = self._result.check(wrapped)
            except pydantic_core.ValidationError as error:
                raise self._invalid("return value", error) from None
        try:
            data = self._result.write(wrapped)
        except EncodingError as error:
            raise EncodingError(f"the result of task {self.task!r}: {error}") from error
        return _with_serializer(data[_VALUE_START:-1], serializer)

    def decode_result(self, result: Arguments, *, serializer: Serializer) -> Any:
        """The value that the task returned, as its annotation has it (as plain data where it does not fit)."""
        data = result.data
        if result.content_type != JSON:
            data = pydantic_core.to_json(serializer.loads(data), inf_nan_mode="constants")
        return _read_what_fits(self._result, b'{"value":' + data + b"}")["value"]

    # --- construction --------------------------------------------------------------------------

    def _field(self, parameter: inspect.Parameter, annotation: Any) -> Any:
        place = f"parameter {parameter.name!r}"
        self._refuse_change(place, annotation)
        if any(isinstance(part, FieldInfo) and part.alias for part in getattr(annotation, "__metadata__", ())):
            raise TaskDefinitionError(self.task, f"{place} has an alias, and a call would not know which name to use")
        if parameter.kind is parameter.VAR_POSITIONAL:
            return list[annotation]
        if parameter.kind is parameter.VAR_KEYWORD:
            return dict[str, annotation]
        return annotation

    def _refuse_change(self, place: str, annotation: Any) -> None:
        if (reason := change_in_transit(annotation)) is not None:
            raise TaskDefinitionError(self.task, f"{place} would arrive changed: {reason}")

    def _form(self, fields: dict[str, Any]) -> Form:
        shape = TypedDict("Call", {name: NotRequired[field] for name, field in fields.items()})  # type: ignore[misc] # built at run time
        cast("Any", shape).__pydantic_config__ = _SETTINGS  # a typed dict does not take those of the validator around it
        try:
            return Form(shape)
        except PydanticUndefinedAnnotation as error:
            raise Unresolved(str(error)) from error
        except (PydanticSchemaGenerationError, PydanticUserError) as error:
            raise TaskDefinitionError(self.task, str(error).partition("\n")[0]) from error

    def _misfit(self, place: str, problem: str) -> ValidationError:
        return ValidationError(self.task, "arguments", ((place, problem),))

    def _invalid(self, what: str, error: pydantic_core.ValidationError) -> ValidationError:
        problems = tuple(
            (_place(item["loc"]), _TAG if item["type"] == "union_tag_invalid" else item["msg"])
            for item in error.errors(include_input=False, include_url=False, include_context=False)
        )
        return ValidationError(self.task, what, problems)


def _place(steps: tuple[int | str, ...]) -> str:
    """Where a problem is; a key that does not fit is a value, and not told."""
    known = steps[:-2] + steps[-1:] if steps[-1:] == ("[key]",) else steps
    return ".".join(str(step) for step in known)


_TAG = "Input tag does not match any of the expected tags"
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_VALUE_START = len(b'{"value":')


def _with_serializer(data: bytes, serializer: Serializer) -> Arguments:
    """JSON bytes as *serializer* has them: JSON itself is what the annotations write already."""
    if serializer.content_type == JSON:
        return Arguments(content_type=JSON, data=data)
    return Arguments(content_type=serializer.content_type, data=serializer.dumps(pydantic_core.from_json(data)))


def _read_what_fits(form: Form, data: bytes) -> dict[str, Any]:
    """The values by name; one that does not fit its annotation as plain data."""
    try:
        values: dict[str, Any] = form.read(data)
    except pydantic_core.ValidationError:
        values = pydantic_core.from_json(data)
        for name, value in values.items():
            with suppress(pydantic_core.ValidationError):
                values[name] = form.read(pydantic_core.to_json({name: value}, inf_nan_mode="constants"))[name]
    return values


def _hints(function: Callable[..., Any], names: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return get_type_hints(inspect.unwrap(function), localns=dict(names), include_extras=True)
    except NameError as error:
        raise Unresolved(str(error)) from error
