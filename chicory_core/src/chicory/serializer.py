"""The serializer contract, and JSON, which is the default."""

from __future__ import annotations

from typing import Any, Protocol, final

import pydantic_core

from chicory.errors import EncodingError

__all__ = ["JSON", "JsonSerializer", "Serializer"]

JSON = "application/json"


class Serializer(Protocol):
    """Turns plain data (None, bool, int, float, str, lists, dicts with text keys) into bytes and back.

    Typed values are taken apart before, and put together after, by the task's annotations; a serializer never sees them.
    """

    content_type: str
    """Travels with the bytes; a worker decodes only the types that its configuration enables."""

    def dumps(self, value: Any) -> bytes:
        """The bytes of *value*.

        Raises:
            EncodingError: something in it is not plain data.
        """
        ...

    def loads(self, data: bytes) -> Any:
        """The value of *data*. Must not run, import or look up anything that the bytes name.

        Raises:
            EncodingError: these bytes are not of this content type.
        """
        ...


@final
class JsonSerializer:
    """JSON as pydantic writes it. NaN and infinities are written as the constants that Python's own ``json`` uses.

    Values that JSON does not know are written as text where there is one obvious way (datetimes, UUIDs, models …) and come
    back as that text: annotate the parameter to have them come back as what they were.
    """

    content_type = JSON

    def dumps(self, value: Any) -> bytes:
        try:
            return pydantic_core.to_json(value, by_alias=True, round_trip=True, inf_nan_mode="constants", bytes_mode="base64")
        except (pydantic_core.PydanticSerializationError, ValueError, RecursionError) as error:
            raise EncodingError(f"cannot be written as JSON: {error}") from error

    def loads(self, data: bytes) -> Any:
        try:
            return pydantic_core.from_json(data)
        except (ValueError, RecursionError) as error:
            raise EncodingError(f"not JSON: {error}") from error
