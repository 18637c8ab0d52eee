"""Structured logs: through the stdlib's logging, with the task they belong to."""

import asyncio
import json
import logging
from contextlib import contextmanager

import pytest

from chicory import logs
from chicory.logs import add_attempt, configure_logs, get_logger
from chicory.message import TaskMessage
from chicory.middleware import current_attempt
from chicory.testing import a_delivery, an_envelope
from chicory.testing.layers import an_attempt


@contextmanager
def a_process_of_its_own(level=logging.WARNING):
    """Logging as a fresh process has it; pytest's own handlers come back afterwards."""
    root = logging.getLogger()
    kept = root.handlers, root.level, logs._output.is_formatted_later
    root.handlers, root.level, logs._output.is_formatted_later = [], level, False
    root.manager._clear_cache()
    try:
        yield
    finally:
        root.handlers, root.level, logs._output.is_formatted_later = kept
        root.manager._clear_cache()


@pytest.fixture
def attempt():
    envelope = an_envelope(id="m1", queue="mail")
    attempt = an_attempt(delivery=a_delivery(envelope=envelope), message=TaskMessage(id="m1", name="mail.send", retries=2))
    token = current_attempt.set(attempt)
    yield attempt
    current_attempt.reset(token)


def test_an_event_is_a_constant_with_facts(caplog):
    get_logger("test", worker_id="w").warning("retry_scheduled", delay=2.5, error_type="OSError")

    assert caplog.messages == ["event=retry_scheduled worker_id=w delay=2.5 error_type=OSError"]
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("chicory.test", "WARNING")


def test_the_task_that_runs_is_added(caplog, attempt):
    get_logger("test").warning("something")

    assert caplog.messages == ["event=something task_id=m1 task=mail.send queue=mail retries=2"]


@pytest.mark.parametrize(
    ("facts", "added"),
    [
        ({}, {"task_id": "m1", "task": "mail.send", "queue": "mail", "retries": 2}),
        ({"task_id": "other"}, {"task_id": "other", "task": "mail.send", "queue": "mail", "retries": 2}),
    ],
    ids=["all", "what is said stays"],
)
def test_the_processor_adds_what_is_not_said(attempt, facts, added):
    assert add_attempt(None, "info", dict(facts)) == added


def test_outside_of_a_task_nothing_is_added():
    assert add_attempt(None, "info", {"event": "x"}) == {"event": "x"}


def test_an_attempt_at_an_unreadable_message_adds_nothing(attempt):
    attempt.message = None

    assert add_attempt(None, "info", {"event": "x"}) == {"event": "x"}


async def test_two_tasks_at_once_are_told_apart(caplog):
    async def run(number):
        current_attempt.set(an_attempt(message=TaskMessage(id=f"m{number}", name="add")))
        await asyncio.sleep(0)
        get_logger("test").warning("ran", number=number)

    await asyncio.gather(*(asyncio.ensure_future(run(number)) for number in range(3)))

    assert [f"number={n}" in message and f"task_id=m{n}" in message for n, message in enumerate(caplog.messages)] == [True] * 3


def break_down():
    raise OSError("gone")


def test_a_traceback_follows_its_event(caplog):
    try:
        break_down()
    except OSError:
        get_logger("test").exception("pump_died")

    (message,) = caplog.messages
    first, _, trace = message.partition("\n")
    assert first == "event=pump_died"
    assert trace.startswith("Traceback (most recent call last)")
    assert trace.rstrip().endswith("OSError: gone")


def test_what_the_level_does_not_let_through_costs_nothing(caplog):
    asked = []

    class Costly:
        def __repr__(self):
            asked.append(1)
            return "costly"

    caplog.set_level("WARNING", logger="chicory.test")
    get_logger("test").debug("started", fact=Costly())

    assert (caplog.messages, asked) == ([], [])


def test_a_library_is_silent_below_warning_until_its_host_says_otherwise(capsys):
    with a_process_of_its_own():
        get_logger("test").info("started")

    assert capsys.readouterr().err == ""


def test_a_host_that_set_nothing_up_still_sees_warnings(capsys):
    with a_process_of_its_own():
        get_logger("test").warning("broker_lost", address="redis://host")

    assert capsys.readouterr().err == "event=broker_lost address=redis://host\n"


def lines_of(capsys):
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()


def test_json_lines_hold_the_event_and_its_facts(capsys, attempt):
    with a_process_of_its_own():
        configure_logs("info", "json")
        get_logger("test", worker_id="w").info("started", delay=2.5)

    (line,) = lines_of(capsys)
    event = json.loads(line)
    assert event.pop("timestamp").endswith("Z")
    assert event == {
        "event": "started",
        "delay": 2.5,
        "worker_id": "w",
        "level": "info",
        "logger": "chicory.test",
        "task_id": "m1",
        "task": "mail.send",
        "queue": "mail",
        "retries": 2,
    }


def test_lines_of_other_libraries_look_the_same_and_name_the_task(capsys, attempt):
    with a_process_of_its_own():
        configure_logs("INFO", "json")
        logging.getLogger("somebody.else").info("their %s", "words")

    (line,) = lines_of(capsys)
    event = json.loads(line)
    assert (event["event"], event["logger"], event["level"]) == ("their words", "somebody.else", "info")
    assert event["task_id"] == "m1"


def test_a_traceback_is_part_of_its_json_line(capsys):
    with a_process_of_its_own():
        configure_logs("INFO", "json")
        try:
            break_down()
        except OSError:
            get_logger("test").exception("pump_died")

    (line,) = lines_of(capsys)
    assert "OSError: gone" in json.loads(line)["exception"]


@pytest.mark.parametrize(
    ("style", "is_json"), [("json", True), ("console", False), ("auto", True)], ids=["json", "console", "auto, no terminal"]
)
def test_the_style_says_for_whom_it_is(capsys, style, is_json):
    with a_process_of_its_own():
        configure_logs("INFO", style)
        get_logger("test").info("started")

    (line,) = lines_of(capsys)
    assert line.startswith("{") is is_json
    assert "started" in line


def test_on_a_terminal_lines_are_for_people(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with a_process_of_its_own():
        configure_logs("INFO", "auto")
        get_logger("test").info("started")

    (line,) = lines_of(capsys)
    assert not line.startswith("{")


@pytest.mark.parametrize(("level", "events"), [("debug", 2), ("INFO", 1), ("warning", 0)], ids=str)
def test_the_level_says_what_is_shown(capsys, level, events):
    with a_process_of_its_own():
        configure_logs(level, "json")
        get_logger("test").debug("a")
        get_logger("test").info("b")

    assert len(lines_of(capsys)) == events
