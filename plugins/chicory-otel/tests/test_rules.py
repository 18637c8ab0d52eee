"""What is decided about spans and labels, as tables."""

from datetime import UTC, datetime, timedelta

import pytest

from chicory import TaskMessage, TaskState
from chicory.errors import LeaseLost, MessageDecodeError, ProcessDiedError, TaskNotFoundError, TaskTimeoutError
from chicory.plugin import Decision, Outcome, failed
from chicory_otel.rules import LINK_ONLY, begins_trace, error_type, outcome_label, settle_word
from chicory_otel.settings import TraceMode

SENT = datetime(2026, 1, 1, tzinfo=UTC)


def later(seconds):
    return SENT + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("message", "hop", "now", "begins"),
    [
        ({}, 0, 0, False),
        ({}, 0, 3600, False),
        ({"eta": later(60)}, 0, 60, False),
        ({"eta": later(61)}, 0, 61, True),
        ({"eta": later(30), "retries": 1}, 1, 30, False),
        ({"eta": later(90), "retries": 1}, 1, 90, True),
        ({"retries": 2}, 2, 3600, False),
        ({}, 2, 59, False),
        ({}, 2, 61, True),
        ({"headers": {LINK_ONLY: "1"}}, 0, 0, True),
        ({"enqueued_at": None, "eta": later(3600)}, 0, 3600, False),
    ],
    ids=[
        "immediate",
        "immediate, after a long wait for a worker",
        "delayed by a minute",
        "delayed by more",
        "retried soon",
        "retried late",
        "retried at once, after a long run",
        "replayed within a minute",
        "replayed later",
        "beyond the spans of a bulk publish",
        "nobody knows when it was sent",
    ],
)
def test_what_is_put_off_by_more_than_a_minute_begins_a_trace(message, hop, now, begins):
    made = TaskMessage(**{"name": "a", "enqueued_at": SENT, **message})

    assert begins_trace(made, hop=hop, now=later(now), mode=TraceMode.AUTO) is begins
    assert begins_trace(made, hop=hop, now=later(now), mode=TraceMode.LINK) is True
    assert begins_trace(made, hop=hop, now=later(now), mode=TraceMode.PARENT) is False


class Payment:
    class DeclinedError(Exception): ...


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (Payment.DeclinedError("card 4711"), "Payment.DeclinedError"),
        (TimeoutError("mine"), "TimeoutError"),
        (TaskTimeoutError("a", 3), "timeout"),
        (LeaseLost("17"), "lease_lost"),
        (ProcessDiedError("a", -11), "crash"),
        (MessageDecodeError("17", "truncated"), "decode"),
        (TaskNotFoundError("a", ()), "unknown_task"),
    ],
)
def test_an_error_is_a_word_and_never_its_text(error, word):
    assert error_type(error) == word


OUTCOMES = {
    "success": (Outcome(value=1), "success", "ack"),
    "failure": (failed(ValueError()), "failure", "ack"),
    "timeout": (failed(TaskTimeoutError("a", 3)), "timeout", "ack"),
    "retry": (Outcome(error=ValueError(), decision=Decision.RETRY), "retry", "retry"),
    "retry of a timeout": (Outcome(error=TaskTimeoutError("a", 3), decision=Decision.RETRY), "retry", "retry"),
    "rejected": (Outcome(error=ValueError(), decision=Decision.REJECT), "failure", "ack"),
    "dead": (Outcome(error=ValueError(), decision=Decision.REJECT, state=TaskState.DEAD_LETTERED), "dead", "dead"),
    "put back": (Outcome(error=TaskNotFoundError("a", ()), decision=Decision.DEFER), None, "release"),
    "lost": (failed(LeaseLost("17")), "lost", "ack"),
}


@pytest.mark.parametrize(("outcome", "label", "word"), OUTCOMES.values(), ids=OUTCOMES)
def test_an_outcome_is_a_label_and_a_way_to_settle(outcome, label, word):
    assert (outcome_label(outcome), settle_word(outcome)) == (label, word)
