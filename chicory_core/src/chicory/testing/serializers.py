"""``SerializerSuite``: plain data comes back as it was, and bytes from elsewhere do no harm."""

from __future__ import annotations

import math
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chicory.errors import EncodingError
from chicory.serializer import Serializer

__all__ = ["SerializerSuite", "plain_data"]

_SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text() | st.floats(allow_nan=False)
plain_data = st.recursive(
    _SCALARS, lambda inside: st.lists(inside, max_size=5) | st.dictionaries(st.text(), inside, max_size=5), max_leaves=20
)
"""What every serializer carries."""


class _Trap:
    """Leaves a trace where it is unpickled."""

    was_sprung = False

    def __reduce__(self) -> tuple[Any, ...]:
        return (setattr, (_Trap, "was_sprung", True))


class SerializerSuite:
    """The contract of a serializer. A subclass gives the class attribute ``serializer``."""

    serializer: Serializer

    def test_it_names_its_content_type(self) -> None:
        kind, slash, name = self.serializer.content_type.partition("/")
        assert kind and slash and name

    @given(value=plain_data)
    def test_plain_data_comes_back(self, value: Any) -> None:
        assert self.serializer.loads(self.serializer.dumps(value)) == value

    @pytest.mark.parametrize("value", [math.inf, -math.inf], ids=str)
    def test_infinities_come_back(self, value: float) -> None:
        assert self.serializer.loads(self.serializer.dumps([value])) == [value]

    def test_nan_comes_back(self) -> None:
        (value,) = self.serializer.loads(self.serializer.dumps([math.nan]))
        assert math.isnan(value)

    def test_what_is_no_data_is_refused(self) -> None:
        with pytest.raises(EncodingError):
            self.serializer.dumps(object())

    @pytest.mark.parametrize("data", [b"", b"\xff\xfe\x00", b"\xc1"], ids=["empty", "binary", "reserved"])
    def test_other_bytes_are_refused(self, data: bytes) -> None:
        with pytest.raises(EncodingError):
            self.serializer.loads(data)

    @given(data=st.binary(max_size=200))
    def test_any_bytes_are_read_or_refused(self, data: bytes) -> None:
        try:
            self.serializer.loads(data)
        except EncodingError as refused:
            assert str(refused)

    def test_a_pickle_does_nothing(self) -> None:
        trap = pickle.dumps(_Trap())  # the test is that loads() below is not pickle's

        with pytest.raises(EncodingError):
            self.serializer.loads(trap)

        assert not _Trap.was_sprung
