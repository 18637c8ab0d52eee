"""What an outcome means for the broker and the backend: tables, with no broker in sight."""

import json
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from chicory.codec import Arguments, Document, read, revise
from chicory.errors import MessageDecodeError, RemoteError, TaskNotFoundError
from chicory.message import TaskMessage, TaskState
from chicory.middleware import Decision, Outcome, failed
from chicory.record import unpack
from chicory.serializer import JSON
from chicory.suspects import DELIVERED_BEFORE, deliveries_so_far
from chicory.testing import a_delivery, an_envelope
from chicory.testing.layers import an_attempt
from chicory.verdict import Keeping, describe, hand_back, record_of, settlement, started_record

NOW = datetime(2026, 1, 1, tzinfo=UTC)
KEEPING = Keeping(result_ttl=3600.0, ignored_ttl=120.0)
ERROR = OSError("gone")
VALUE = Arguments(content_type=JSON, data=b"[1,2]")


@pytest.fixture
def attempt_at(app):
    """Makes an attempt at hop *hop*, at its *count*-th delivery, at a task with *options*."""

    def make(hop=0, count=1, retries=0, **options):
        options.setdefault("name", "tasks.noop")

        @app.task(**options)
        async def noop() -> None: ...

        delivery = a_delivery(envelope=an_envelope(hop=hop, queue="mail", id="m1"), delivery_count=count)
        message = TaskMessage(id="m1", name="tasks.noop", retries=retries)
        return an_attempt(delivery=delivery, task=noop, message=message, started_at=NOW)

    return make


def settle(attempt, outcome, keeping=KEEPING):
    return settlement(attempt, outcome, now=NOW + timedelta(seconds=5), keeping=keeping)


# --- decisions ------------------------------------------------------------------------------------

TABLE = {
    "success": (Outcome(value=[1, 2], result=VALUE), TaskState.SUCCESS, 0),
    "failure": (failed(ERROR), TaskState.FAILURE, 0),
    "final failure": (failed(ERROR, final=True), TaskState.FAILURE, 0),
    "rejected": (Outcome(error=ERROR, decision=Decision.REJECT, reason="validation"), TaskState.FAILURE, 0),
    "expired": (Outcome(error=ERROR, decision=Decision.REJECT, state=TaskState.EXPIRED), TaskState.EXPIRED, 0),
    "retried": (Outcome(error=ERROR, decision=Decision.RETRY, delay=8.0), TaskState.RETRY, 1),
    "put back": (Outcome(error=ERROR, decision=Decision.DEFER, delay=2.0), None, 1),
}


@pytest.mark.parametrize(("outcome", "state", "follow_ups"), TABLE.values(), ids=list(TABLE))
def test_what_an_outcome_leads_to(outcome, state, follow_ups, attempt_at):
    settled = settle(attempt_at(), outcome)

    assert settled.ends
    assert (None if settled.result is None else settled.result.state) is state
    assert len(settled.publish) == follow_ups


@pytest.mark.parametrize(("outcome", "state", "follow_ups"), TABLE.values(), ids=list(TABLE))
def test_where_no_results_are_kept_nothing_is_said(outcome, state, follow_ups, attempt_at):
    settled = settle(attempt_at(), outcome, keeping=None)

    assert settled.result is None
    assert len(settled.publish) == follow_ups


@pytest.mark.parametrize(
    ("outcome", "position"),
    [
        (Outcome(), (4, 3)),
        (failed(ERROR), (4, 3)),
        (Outcome(error=ERROR, decision=Decision.RETRY), (5, 0)),
    ],
    ids=["success", "failure", "retry speaks for the message that follows"],
)
def test_a_record_says_which_try_wrote_it(outcome, position, attempt_at):
    record = settle(attempt_at(hop=4, count=3), outcome).result

    assert (record.hop, record.delivery_count) == position


def test_a_record_of_a_retry_has_no_end(attempt_at):
    assert settle(attempt_at(), Outcome(error=ERROR, decision=Decision.RETRY)).result.ttl is None


# --- what follows ----------------------------------------------------------------------------------


def test_a_retry_is_counted_and_due_after_its_delay(attempt_at):
    attempt = attempt_at(hop=2, retries=1)

    (follow_up,) = settle(attempt, Outcome(error=ERROR, decision=Decision.RETRY, delay=8.0)).publish

    document = read(follow_up)
    assert (follow_up.id, follow_up.queue, follow_up.hop) == ("m1", "mail", 3)
    assert follow_up.due == document.eta == NOW + timedelta(seconds=13)
    assert (document.retries, document.last_error, document.first_failure_at) == (2, "OSError", NOW + timedelta(seconds=5))


def test_the_moment_of_the_first_failure_stays(attempt_at):
    attempt = attempt_at(retries=1)
    attempt.message = msgspec.structs.replace(attempt.message, first_failure_at=NOW)

    (follow_up,) = settle(attempt, Outcome(error=ERROR, decision=Decision.RETRY)).publish

    assert read(follow_up).first_failure_at == NOW


def test_a_retry_without_delay_is_due_at_once(attempt_at):
    attempt = attempt_at()
    attempt.delivery = a_delivery(envelope=revise(an_envelope(id="m1"), eta=NOW))

    (follow_up,) = settle(attempt, Outcome(error=ERROR, decision=Decision.RETRY, delay=0.0)).publish

    assert follow_up.due is None
    assert read(follow_up).eta is None


def test_what_is_put_back_counts_as_no_retry(attempt_at):
    changes = {"headers": {"unknown_since": "2026"}}

    (follow_up,) = settle(attempt_at(retries=1), Outcome(decision=Decision.DEFER, delay=2.0, changes=changes)).publish

    document = read(follow_up)
    assert (document.retries, document.last_error, document.first_failure_at) == (0, None, None)
    assert (document.headers, follow_up.due) == ({"unknown_since": "2026"}, NOW + timedelta(seconds=7))


@pytest.mark.parametrize("decision", [Decision.RETRY, Decision.DEFER], ids=str)
@pytest.mark.parametrize(
    "changes", [{}, {"headers": {"unknown_since": "2026", DELIVERED_BEFORE: "3"}}], ids=["none", "headers"]
)
def test_a_message_that_could_be_settled_is_no_suspect_any_more(decision, changes, attempt_at):
    attempt = attempt_at()
    attempt.message = msgspec.structs.replace(attempt.message, headers={DELIVERED_BEFORE: "3", "trace": "t"})

    (follow_up,) = settle(attempt, Outcome(error=ERROR, decision=decision, changes=changes)).publish

    assert read(follow_up).headers == ({"unknown_since": "2026"} if changes else {"trace": "t"})


def test_envelopes_of_the_outcome_go_out_before_the_follow_up(attempt_at):
    link = an_envelope(id="next")

    settled = settle(attempt_at(), Outcome(error=ERROR, decision=Decision.RETRY, publish=(link,)))

    assert [envelope.id for envelope in settled.publish] == ["next", "m1"]


def test_a_dead_letter_carries_the_id_on(attempt_at):
    attempt = attempt_at(hop=2, count=3)
    dead = revise(attempt.delivery.envelope, queue="mail.dlq")

    settled = settle(attempt, Outcome(error=ERROR, publish=(dead,), state=TaskState.DEAD_LETTERED))

    assert settled.publish == (dead,)
    record = settled.result
    assert (record.state, record.id, record.hop, record.delivery_count) == (TaskState.DEAD_LETTERED, "m1", 3, 3)
    assert (unpack(record).error_type, unpack(record).queue) == ("OSError", "mail")


def test_a_follow_up_of_another_id_does_not_move_the_record(attempt_at):
    settled = settle(attempt_at(hop=2), Outcome(publish=(an_envelope(id="next", hop=9),)))

    assert settled.result.hop == 2


def test_a_hand_back_counts_nothing():
    envelope = revise(an_envelope(id="m1", queue="mail"), retries=2, eta=NOW)
    delivery = a_delivery(envelope=envelope)

    settled = hand_back(delivery)

    (follow_up,) = settled.publish
    assert (settled.ends, settled.result, settled.delivery) == (True, None, delivery)
    assert (follow_up.hop, follow_up.due, read(follow_up).retries) == (2, NOW, 2)
    assert json.loads(follow_up.body) == json.loads(envelope.body)


def test_a_hand_back_does_not_forget_the_deliveries_before():
    """Or a task that kills its workers could be delivered for ever, if it is handed back in between."""
    delivery = a_delivery(envelope=an_envelope(id="m1"), delivery_count=4)

    (follow_up,) = hand_back(delivery).publish

    assert deliveries_so_far(a_delivery(envelope=follow_up), read(follow_up).headers) == 4


def test_an_unreadable_message_is_handed_back_as_it_is():
    delivery = a_delivery(envelope=an_envelope(body=b"\xff"))

    (follow_up,) = hand_back(delivery).publish

    assert (follow_up.body, follow_up.hop) == (b"\xff", 1)


# --- records ---------------------------------------------------------------------------------------


def test_a_success_keeps_its_value_for_the_results_time(attempt_at):
    record = settle(attempt_at(retries=2), Outcome(value=[1, 2], result=VALUE)).result

    document = unpack(record)
    assert (record.ttl, document.value_bytes()) == (3600.0, VALUE)
    assert (document.task, document.queue, document.worker_id, document.retries) == ("tasks.noop", "mail", "w", 2)
    assert (document.started_at, document.finished_at) == (NOW, NOW + timedelta(seconds=5))
    assert (document.error_type, document.error, document.traceback, document.ignored) == (None, None, None, False)


@pytest.mark.parametrize("outcome", [Outcome(value=1, result=VALUE), failed(ERROR)], ids=["success", "failure"])
def test_an_ignored_result_keeps_its_state_for_a_short_time_and_no_value(outcome, attempt_at):
    record = settle(attempt_at(ignore_result=True), outcome).result

    assert (record.ttl, unpack(record).value_bytes(), unpack(record).ignored) == (120.0, None, True)
    assert record.state in (TaskState.SUCCESS, TaskState.FAILURE)


def raised(text):
    """An error that has been on its way, and so has a traceback."""
    with pytest.raises(OSError) as caught:
        raise OSError(text)
    return caught.value


def test_a_failure_keeps_type_text_and_traceback(attempt_at):
    error = raised("gone")

    document = unpack(settle(attempt_at(), failed(error)).result)

    assert (document.error_type, document.error) == ("OSError", "gone")
    assert document.traceback.startswith("Traceback (most recent call last)")
    assert document.traceback.endswith("OSError: gone\n")


def test_an_error_that_was_never_raised_has_no_traceback(attempt_at):
    assert unpack(settle(attempt_at(), failed(ERROR)).result).traceback is None


def test_the_error_of_a_child_process_keeps_what_it_was_there(attempt_at):
    error = RemoteError.of("Till.Busy", ("shop.Till.Busy", "builtins.OSError"), "till 3 is", "Traceback of the child")

    document = unpack(settle(attempt_at(), failed(error)).result)

    assert (document.error_type, document.error, document.traceback) == ("Till.Busy", "till 3 is", "Traceback of the child")


def test_a_long_traceback_keeps_its_end(attempt_at):
    error = raised("x" * 100_000)

    text = unpack(settle(attempt_at(), failed(error)).result).traceback

    assert (text[0], len(text)) == ("…", 48 * 1024 + 1)
    assert text.endswith("xxx\n")


@pytest.mark.parametrize(
    ("error", "described"),
    [
        (OSError("gone"), ("OSError", "gone")),
        (KeyError("x"), ("KeyError", "'x'")),
        (RuntimeError(), ("RuntimeError", "")),
        (ValueError("x" * 9000), ("ValueError", "x" * 8192 + "…")),
        (json.JSONDecodeError("no", "", 0), ("JSONDecodeError", "no: line 1 column 1 (char 0)")),
    ],
    ids=["text", "repr", "nothing", "long", "from a module"],
)
def test_an_error_is_described_by_type_and_text(error, described):
    assert describe(error) == described


@pytest.mark.parametrize(
    ("message", "document", "problem"),
    [
        (None, None, MessageDecodeError("m1", "truncated")),
        (TaskMessage(id="m1", name="new"), Document(version=1, id="m1", task="new"), TaskNotFoundError("new", ())),
    ],
    ids=["unreadable", "unknown"],
)
def test_a_message_without_task_has_a_record_too(message, document, problem):
    attempt = an_attempt(envelope=an_envelope(id="m1", hop=1), message=message, document=document, problem=problem)

    record = settle(attempt, Outcome(error=problem, decision=Decision.REJECT, final=True)).result

    assert (record.id, record.state, record.hop, record.ttl) == ("m1", TaskState.FAILURE, 1, 3600.0)
    assert unpack(record).task == ("?" if message is None else "new")


def test_an_error_whose_text_cannot_be_had_has_a_record_too(attempt_at):
    class MuteError(Exception):
        def __str__(self):
            raise RuntimeError("no text")

    record = settle(attempt_at(), failed(MuteError())).result

    assert (record.state, unpack(record).error_type) == (TaskState.FAILURE, f"{MuteError.__qualname__}")


def test_a_text_that_is_no_unicode_has_a_record_too(attempt_at):
    record = settle(attempt_at(), failed(OSError("\udcff"))).result

    assert (record.state, unpack(record).error_type) == (TaskState.FAILURE, "OSError")


# --- while it runs ---------------------------------------------------------------------------------


def test_a_running_task_says_where_and_since_when(attempt_at):
    attempt = attempt_at(hop=2, count=3, retries=1)
    attempt.progress = (1.0, 3.0)

    record = started_record(attempt)

    document = unpack(record)
    assert (record.state, record.hop, record.delivery_count) == (TaskState.STARTED, 2, 3)
    assert (record.ttl, record.holder) == (None, None)
    assert (document.worker_id, document.started_at, document.retries, document.progress) == ("w", NOW, 1, (1.0, 3.0))


def test_a_task_that_runs_at_most_once_names_its_worker(attempt_at):
    assert started_record(attempt_at(), holds=True).holder == "w"


def test_records_of_one_try_follow_each_other(attempt_at):
    attempt = attempt_at(hop=1, count=2)
    started, ended = started_record(attempt), record_of(attempt, Outcome(), now=NOW, keeping=KEEPING)
    again = record_of(attempt, Outcome(error=ERROR, decision=Decision.RETRY), now=NOW, keeping=KEEPING)

    assert ended.may_follow(started.state, started.hop, started.delivery_count)
    assert again.may_follow(started.state, started.hop, started.delivery_count)
    assert not started.may_follow(again.state, again.hop, again.delivery_count)
