"""Messages as documents: what travels, what a follow-up keeps, and what no bytes may do."""

import base64
import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chicory.codec import DEFAULT_LIMIT, VERSION, Arguments, Document, encode, is_strict_json, read, revise
from chicory.errors import MessageDecodeError, PayloadTooLargeError
from chicory.message import Envelope, TaskMessage
from chicory.serializer import JSON
from chicory.testing import an_envelope
from chicory.testing.serializers import plain_data

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ARGUMENTS = Arguments(content_type=JSON, data=b'{"args":[1],"kwargs":{"y":2}}')
FULL = TaskMessage(
    id="m1",
    name="add",
    queue="mail",
    retries=2,
    eta=NOW,
    priority=7,
    expires=NOW + timedelta(hours=1),
    headers={"trace": "t1"},
    enqueued_at=NOW,
    first_failure_at=NOW,
    last_error="OSError",
)


def document_in(envelope):
    return json.loads(envelope.body)


def with_unknown_fields(**fields):
    envelope = encode(FULL, ARGUMENTS)
    text = json.dumps({**document_in(envelope), "from_the_future": {"a": [1, None]}, **fields})
    return msgspec.structs.replace(envelope, body=text.encode())


# --- encode and read -----------------------------------------------------------------------------


def test_a_message_comes_back_with_all_its_fields():
    document = read(encode(FULL, ARGUMENTS))

    assert document.message() == FULL
    assert document.argument_bytes() == ARGUMENTS


def test_the_envelope_carries_what_a_broker_needs():
    envelope = encode(FULL, ARGUMENTS)

    assert (envelope.id, envelope.queue, envelope.due, envelope.priority, envelope.hop) == ("m1", "mail", NOW, 7, 0)


def test_a_person_can_read_the_document():
    envelope = encode(TaskMessage(id="m1", name="add"), ARGUMENTS)

    assert envelope.body == b'{"chicory":1,"id":"m1","task":"add","arguments":{"args":[1],"kwargs":{"y":2}}}'


@pytest.mark.parametrize(
    ("content_type", "data"),
    [
        ("application/msgpack", b"\x82\xa4args\x90\xa6kwargs\x80"),
        ("application/x-text", b'{"args":[],"kwargs":{}}'),
        (JSON, b'{"args":[NaN],"kwargs":{}}'),
        (JSON, b'{"args":[-Infinity],"kwargs":{}}'),
    ],
    ids=["binary", "text of another type", "NaN", "infinity"],
)
def test_arguments_that_are_not_json_to_everybody_travel_as_base64(content_type, data):
    arguments = Arguments(content_type=content_type, data=data)

    envelope = encode(FULL, arguments)

    assert "arguments" not in document_in(envelope)
    assert base64.b64decode(document_in(envelope)["packed"]) == data
    assert read(envelope).argument_bytes() == arguments


def test_the_word_nan_in_a_text_does_not_keep_arguments_from_being_read():
    arguments = Arguments(content_type=JSON, data=b'{"args":["NaN, Infinity"],"kwargs":{}}')

    envelope = encode(FULL, arguments)

    assert document_in(envelope)["arguments"] == {"args": ["NaN, Infinity"], "kwargs": {}}
    assert "packed" not in document_in(envelope)


@pytest.mark.parametrize(
    ("data", "is_strict"),
    [
        (b"[1]", True),
        (b'"NaN"', True),
        (b'["Infinity", 1]', True),
        (b"NaN", False),
        (b"[1, Infinity]", False),
        (b'{"a": -Infinity}', False),
    ],
    ids=["plain", "the word NaN", "the word Infinity", "NaN", "infinity", "minus infinity"],
)
def test_json_with_constants_of_python_is_not_strict(data, is_strict):
    assert is_strict_json(data) is is_strict


def test_a_message_over_the_limit_is_refused_with_its_size():
    size = len(encode(FULL, ARGUMENTS).body)

    assert encode(FULL, ARGUMENTS, limit=size)
    with pytest.raises(PayloadTooLargeError) as refused:
        encode(FULL, ARGUMENTS, limit=size - 1)
    assert (refused.value.size, refused.value.limit) == (size, size - 1)
    assert "the message for task 'add'" in str(refused.value)


def test_a_message_over_the_limit_is_not_read():
    envelope = encode(FULL, ARGUMENTS)

    assert read(envelope, limit=len(envelope.body))
    with pytest.raises(MessageDecodeError, match=f"it has {len(envelope.body)} bytes, more than the 10 allowed"):
        read(envelope, limit=10)


def test_the_limit_is_half_a_mebibyte():
    big = Arguments(content_type=JSON, data=b'{"args":["' + b"x" * DEFAULT_LIMIT + b'"],"kwargs":{}}')

    with pytest.raises(PayloadTooLargeError, match="more than the 524288 allowed"):
        encode(FULL, big)


@pytest.mark.parametrize("version", [0, VERSION + 1, 99], ids=str)
def test_a_document_of_another_version_is_refused(version):
    envelope = with_unknown_fields(chicory=version)

    with pytest.raises(
        MessageDecodeError, match=f"its version is {version}, and this chicory reads 1: update the workers first"
    ):
        read(envelope)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"chicory":1}',
        b'{"chicory":1,"id":"m1"}',
        b'{"chicory":"1","id":"m1","task":"add"}',
        b'{"chicory":1,"id":7,"task":"add"}',
        b'{"chicory":1,"id":"m1","task":"add","eta":"tomorrow"}',
        b'{"chicory":1,"id":"m1","task":"add","headers":[]}',
        b'{"chicory":1,"id":"m1","task":"add","packed":"!"}',
        b'{"chicory":1,"id":"m1","task":"add"',
        b'{"chicory":1,"id":"m1","task":"\xff"}',
        b"\x80\x04\x95",
        b"[" * 50_000,
    ],
    ids=[
        "empty",
        "null",
        "list",
        "no fields",
        "no id",
        "no task",
        "version of another type",
        "id of another type",
        "no moment",
        "headers of another type",
        "no base64",
        "cut off",
        "no unicode",
        "binary",
        "nested without end",
    ],
)
def test_what_is_no_document_is_refused_by_its_id(body):
    envelope = Envelope(id="m1", queue="default", body=body)

    with pytest.raises(MessageDecodeError) as refused:
        read(envelope)

    assert refused.value.message_id == "m1"
    assert refused.value.problem


@given(body=st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(body):
    envelope = Envelope(id="m1", queue="default", body=body)

    with suppress(MessageDecodeError):
        assert read(envelope).version == VERSION


FIELDS = [field.encode_name for field in msgspec.structs.fields(Document)]


@settings(max_examples=40)
@given(fields=st.dictionaries(st.sampled_from(FIELDS) | st.text(), plain_data | st.sampled_from(["2026-01-01", "/w==", 1])))
def test_any_object_is_read_or_refused(fields):
    body = json.dumps({"chicory": 1, "id": "m1", "task": "add", **fields}).encode()

    with suppress(MessageDecodeError):
        document = read(Envelope(id="m1", queue="default", body=body))
        assert document.message().id == document.id
        assert document.argument_bytes().content_type == document.content_type


# --- revise --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"eta": NOW, "retries": 3, "first_failure_at": NOW, "last_error": "OSError"},
        {"eta": NOW, "headers": {"unknown_since": "2026"}},
        {},
        {"queue": "mail", "retries": 0, "eta": None, "last_error": None},
        {"queue": "mail.dlq", "headers": {"reason": "x"}},
    ],
    ids=["retry", "defer", "hand back", "replay", "dead letter"],
)
def test_a_follow_up_keeps_the_fields_it_does_not_know(changes):
    envelope = with_unknown_fields()

    follow_up = revise(envelope, **changes)

    assert document_in(follow_up)["from_the_future"] == {"a": [1, None]}
    assert document_in(follow_up)["arguments"] == {"args": [1], "kwargs": {"y": 2}}


def test_a_follow_up_is_one_hop_further_each_time():
    envelope = an_envelope()
    hops, keys = [], []

    for _ in range(3):
        envelope = revise(envelope)
        hops.append(envelope.hop)
        keys.append(envelope.dedup_key)

    assert hops == [1, 2, 3]
    assert keys == [f"{envelope.id}:{hop}" for hop in hops]


def test_a_hand_back_changes_nothing_but_the_hop():
    envelope = encode(FULL, ARGUMENTS)

    follow_up = revise(envelope)

    assert document_in(follow_up) == document_in(envelope)
    assert msgspec.structs.replace(follow_up, hop=0, body=envelope.body) == envelope


def test_a_change_of_route_is_one_of_the_document_too():
    later = NOW + timedelta(minutes=5)

    follow_up = revise(encode(FULL, ARGUMENTS), queue="slow", priority=1, eta=later)

    assert (follow_up.queue, follow_up.priority, follow_up.due) == ("slow", 1, later)
    message = read(follow_up).message()
    assert (message.queue, message.priority, message.eta) == ("slow", 1, later)


def test_other_changes_leave_the_route_alone():
    envelope = encode(FULL, ARGUMENTS)

    follow_up = revise(envelope, retries=3)

    assert (follow_up.queue, follow_up.priority, follow_up.due) == (envelope.queue, envelope.priority, envelope.due)
    assert read(follow_up).retries == 3


def test_none_removes_a_field():
    follow_up = revise(encode(FULL, ARGUMENTS), eta=None, last_error=None, expires=None)

    assert {"eta", "last_error", "expires"} & document_in(follow_up).keys() == set()
    assert follow_up.due is None
    assert read(follow_up).message().expires is None


def test_removing_a_field_that_is_not_there_is_nothing():
    envelope = an_envelope()

    assert document_in(revise(envelope, last_error=None)) == document_in(envelope)


def test_packed_arguments_survive_a_follow_up():
    arguments = Arguments(content_type="application/msgpack", data=bytes(range(256)))

    follow_up = revise(encode(FULL, arguments), retries=3)

    assert read(follow_up).argument_bytes() == arguments


def test_numbers_and_texts_survive_a_follow_up_to_the_letter():
    data = b'{"args":[1.0,1e400,12345678901234567890123,"\\u00e9"],"kwargs":{"k":-0.0}}'

    follow_up = revise(encode(FULL, Arguments(content_type=JSON, data=data)), retries=3)

    assert read(follow_up).argument_bytes().data == data


@pytest.mark.parametrize(
    "body",
    [b"", b"\xff\x00", b"[1]", b"null", b'{"a":', b"[" * 50_000],
    ids=["empty", "binary", "list", "null", "cut off", "nested"],
)
def test_a_body_that_cannot_be_read_passes_unchanged(body):
    envelope = Envelope(id="m1", queue="default", body=body, hop=4)

    follow_up = revise(envelope, queue="default.dlq", priority=3, eta=NOW, headers={"reason": "unreadable"})

    assert follow_up == Envelope(id="m1", queue="default.dlq", body=body, hop=5, priority=3, due=NOW)


@given(body=st.binary(max_size=300))
def test_any_bytes_have_a_follow_up(body):
    follow_up = revise(Envelope(id="m1", queue="default", body=body), queue="default.dlq", retries=1)

    assert (follow_up.queue, follow_up.hop) == ("default.dlq", 1)
