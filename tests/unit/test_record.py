"""Results as documents."""

import json
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chicory.codec import Arguments
from chicory.errors import EncodingError
from chicory.message import TaskResult, TaskState
from chicory.record import ResultDocument, pack, read_result, unpack
from chicory.serializer import JSON
from chicory.testing import a_record

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FULL = ResultDocument(
    task="add",
    queue="mail",
    retries=2,
    worker_id="w",
    started_at=NOW,
    finished_at=NOW,
    error_type="OSError",
    error="gone",
    traceback="Traceback …",
    progress=(1.0, 3.0),
    ignored=True,
)


def as_json(document, value):
    return json.loads(value.data)


def never(document, value):
    raise AssertionError("there is no value to read")


def test_a_record_says_all_that_is_known():
    record = a_record(id="m1", state=TaskState.FAILURE, hop=3, delivery_count=2, body=pack(FULL))

    result = read_result(record, never)

    assert result == TaskResult(
        task_id="m1",
        state=TaskState.FAILURE,
        task="add",
        queue="mail",
        value=None,
        error_type="OSError",
        error="gone",
        traceback="Traceback …",
        retries=2,
        hop=3,
        delivery_count=2,
        worker_id="w",
        started_at=NOW,
        finished_at=NOW,
        progress=(1.0, 3.0),
        ignored=True,
    )


def test_a_record_without_document_says_its_state():
    record = a_record(state=TaskState.PENDING, body=b"")

    result = read_result(record, never)

    assert (result.state, result.task, result.value) == (TaskState.PENDING, None, None)


@pytest.mark.parametrize("data", [b"3", b"null", b'{"a":[1]}', b'"NaN"'], ids=["number", "None", "object", "the word NaN"])
def test_a_value_in_json_stands_in_the_document_as_it_is(data):
    body = pack(ResultDocument(task="add"), Arguments(content_type=JSON, data=data))

    assert b'"value":' + data in body
    assert read_result(a_record(body=body), lambda document, value: value.data).value == data


@pytest.mark.parametrize(
    ("content_type", "data"),
    [(JSON, b"NaN"), (JSON, b"[1,Infinity]"), ("application/msgpack", b"\xff\x00")],
    ids=["NaN", "infinity", "another content type"],
)
def test_any_other_value_is_packed(content_type, data):
    value = Arguments(content_type=content_type, data=data)

    body = pack(ResultDocument(task="add"), value)

    assert "value" not in json.loads(body)
    assert unpack(a_record(body=body)).value_bytes() == value


def test_the_value_is_read_by_whom_knows_its_task():
    body = pack(ResultDocument(task="add"), Arguments(content_type=JSON, data=b"[1,2]"))
    seen = []

    def value_of(document, value):
        seen.append(document.task)
        return as_json(document, value)

    assert read_result(a_record(body=body), value_of).value == [1, 2]
    assert seen == ["add"]


def test_a_document_carries_its_version():
    assert json.loads(pack(ResultDocument()))["chicory"] == 1


def test_fields_from_the_future_do_no_harm():
    body = json.dumps({**json.loads(pack(FULL)), "from_the_future": [1]}).encode()

    assert read_result(a_record(body=body), never).task == "add"


@pytest.mark.parametrize(
    "body",
    [b"[]", b"\xff", b'{"retries":"x"}', b'{"packed":"!"}', b'{"a":'],
    ids=["list", "binary", "type", "base64", "cut off"],
)
def test_what_is_no_document_is_refused_by_its_id(body):
    record = a_record(id="m1", body=body)

    with pytest.raises(EncodingError, match="the result of 'm1' cannot be read"):
        unpack(record)


@given(body=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(body):
    with suppress(EncodingError):
        assert isinstance(unpack(a_record(id="m1", body=body)), ResultDocument)
