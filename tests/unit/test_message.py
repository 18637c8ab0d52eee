"""The values that travel: ids, states, positions."""

import uuid
from datetime import UTC, datetime

import pytest

from chicory.message import (
    BackendType,
    BrokerType,
    Delivery,
    DeliveryMode,
    Envelope,
    TaskMessage,
    TaskResult,
    TaskState,
    ValidationMode,
    WorkerStats,
    new_id,
)
from chicory.testing import a_delivery, a_record, an_envelope


def test_an_id_is_a_uuid_of_version_7():
    made = uuid.UUID(new_id())

    assert (made.version, made.variant) == (7, uuid.RFC_4122)


def test_ids_are_never_the_same():
    assert len({new_id() for _ in range(2000)}) == 2000


def test_ids_sort_by_the_time_they_were_made(monkeypatch):
    moments = [1, 2, 1_700_000_000_000, 1_700_000_000_001, 2**47]
    ids = []
    for milliseconds in moments:
        monkeypatch.setattr("chicory.message.time.time_ns", lambda now=milliseconds: now * 1_000_000)
        ids.append(new_id())

    assert ids == sorted(ids)
    assert [uuid.UUID(text).int >> 80 for text in ids] == moments


@pytest.mark.parametrize("state", TaskState)
def test_the_value_of_a_state_is_its_name(state):
    assert (state.value, str(state)) == (state.name, state.name)


@pytest.mark.parametrize(
    ("state", "is_terminal"),
    [
        (TaskState.PENDING, False),
        (TaskState.STARTED, False),
        (TaskState.RETRY, False),
        (TaskState.SUCCESS, True),
        (TaskState.FAILURE, True),
        (TaskState.DEAD_LETTERED, True),
        (TaskState.CANCELLED, True),
        (TaskState.EXPIRED, True),
    ],
    ids=str,
)
def test_terminal_states_are_those_that_nothing_follows(state, is_terminal):
    assert state.is_terminal is is_terminal


@pytest.mark.parametrize(
    ("mode", "inputs", "outputs"),
    [
        (ValidationMode.NONE, False, False),
        (ValidationMode.INPUTS, True, False),
        (ValidationMode.OUTPUTS, False, True),
        (ValidationMode.STRICT, True, True),
    ],
    ids=str,
)
def test_a_validation_mode_says_what_is_checked(mode, inputs, outputs):
    assert (mode.checks_inputs, mode.checks_outputs) == (inputs, outputs)


def test_the_names_of_our_brokers_and_backends_are_strings():
    names = ["redis", "nats", "sqlite", "memory"]

    assert [str(member) for member in BrokerType] == names
    assert [str(member) for member in BackendType] == names
    assert [str(member) for member in DeliveryMode] == ["at_least_once", "at_most_once"]


def test_a_message_made_by_hand_needs_only_a_name():
    message = TaskMessage(name="add")

    assert uuid.UUID(message.id).version == 7
    assert (message.args, message.kwargs, message.queue, message.retries) == ((), {}, "default", 0)
    assert (message.eta, message.priority, message.expires, message.headers) == (None, 0, None, {})


def test_two_messages_share_no_dictionary():
    first, second = TaskMessage(name="add"), TaskMessage(name="add")

    assert first.kwargs is not second.kwargs
    assert first.headers is not second.headers


@pytest.mark.parametrize(
    "value",
    [
        TaskMessage(name="add"),
        an_envelope(),
        a_delivery(),
        a_record(),
        TaskResult(task_id="m1", state=TaskState.SUCCESS),
        WorkerStats(worker_id="w", hostname="h", pid=1, queues=("a",), concurrency=1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_do_not_change(value):
    name = value.__struct_fields__[0]

    with pytest.raises(AttributeError):
        setattr(value, name, "other")


@pytest.mark.parametrize(("hop", "key"), [(0, "m1"), (1, "m1:1"), (12, "m1:12")], ids=["first", "retry", "many"])
def test_a_repeat_is_known_by_id_and_hop(hop, key):
    envelope = Envelope(id="m1", queue="default", body=b"", hop=hop)

    assert envelope.dedup_key == key


@pytest.mark.parametrize(
    ("hop", "count", "is_first"),
    [(0, 1, True), (0, 2, False), (1, 1, False), (3, 2, False)],
    ids=["fresh", "lease ran out", "retried", "both"],
)
def test_only_a_fresh_delivery_is_the_first(hop, count, is_first):
    delivery = a_delivery(envelope=an_envelope(hop=hop), delivery_count=count)

    assert delivery.is_first is is_first


def test_a_delivery_knows_its_queue():
    assert a_delivery(envelope=an_envelope(queue="mail")).queue == "mail"
    assert "queue" not in Delivery.__struct_fields__


PENDING, STARTED, RETRY, SUCCESS, FAILURE = (
    TaskState.PENDING,
    TaskState.STARTED,
    TaskState.RETRY,
    TaskState.SUCCESS,
    TaskState.FAILURE,
)


@pytest.mark.parametrize(
    ("new", "there", "may"),
    [
        ((STARTED, 0, 1), (PENDING, 0, 0), True),
        ((SUCCESS, 0, 1), (STARTED, 0, 1), True),
        ((SUCCESS, 0, 1), (STARTED, 0, 2), False),
        ((RETRY, 1, 0), (STARTED, 0, 1), True),
        ((STARTED, 0, 1), (RETRY, 1, 0), False),
        ((STARTED, 1, 1), (RETRY, 1, 0), True),
        ((FAILURE, 0, 1), (SUCCESS, 0, 1), False),
        ((SUCCESS, 3, 9), (FAILURE, 0, 1), False),
        ((PENDING, 0, 0), (SUCCESS, 0, 1), False),
        ((PENDING, 1, 0), (SUCCESS, 0, 1), True),
        ((PENDING, 1, 0), (STARTED, 2, 1), False),
    ],
    ids=[
        "start after publish",
        "end after start",
        "end of a try that was overtaken",
        "retry speaks for the next hop",
        "late start before a retry",
        "the retry starts",
        "second end",
        "end after the end, however late",
        "repeat of the publish",
        "replay",
        "late replay",
    ],
)
def test_a_record_gives_way_only_to_a_later_one(new, there, may):
    state, hop, count = new
    record = a_record(state=state, hop=hop, delivery_count=count)

    assert record.may_follow(*there) is may


def test_a_worker_shows_its_queues_in_one_word():
    stats = WorkerStats(worker_id="w", hostname="h", pid=1, queues=("high", "low"), concurrency=4)

    assert stats.queue == "high,low"


def test_instants_stay_as_they_are():
    moment = datetime(2026, 1, 1, tzinfo=UTC)

    assert TaskMessage(name="add", eta=moment).eta is moment
