"""The broker contract's values."""

from datetime import UTC, datetime

import pytest

from chicory.broker import Capabilities, QueueBrowser, QueuedMessage, QueuePage, QueueStats, dead_letter_queue
from chicory.memory import MemoryBackend, MemoryBroker
from chicory.options import check_queue
from chicory.testing import an_envelope


@pytest.mark.parametrize(
    ("queue", "dead"),
    [("default", "default.dlq"), ("mail.high", "mail.high.dlq"), ("a.dlq", "a.dlq.dlq")],
    ids=["plain", "dotted", "its own"],
)
def test_dead_letters_lie_in_a_queue_named_after_theirs(queue, dead):
    assert dead_letter_queue(queue) == dead


def test_a_dead_letter_queue_is_an_ordinary_queue():
    check_queue(dead_letter_queue("default"))


def test_a_broker_that_declares_nothing_promises_little():
    assert Capabilities() == Capabilities(
        delayed=True,
        priorities=10,
        dedup_window=0.0,
        atomic_publish=False,
        fenced=False,
        browse=False,
        max_message_bytes=None,
        persistent=False,
    )


def test_capabilities_are_believed_and_so_do_not_change():
    with pytest.raises(AttributeError):
        Capabilities().delayed = False


@pytest.mark.parametrize("name", Capabilities.__struct_fields__)
def test_every_capability_is_explained(name):
    assert f"{name}:" in Capabilities.__doc__


def test_an_empty_queue_counts_nothing():
    stats = QueueStats(queue="mail")

    assert (stats.ready, stats.delayed, stats.running, stats.oldest_seconds) == (0, 0, 0, None)


def test_the_last_page_has_no_cursor():
    message = QueuedMessage(envelope=an_envelope(), state="ready", since=datetime(2026, 1, 1, tzinfo=UTC))

    assert QueuePage(messages=[message]).cursor is None


def test_whether_a_broker_can_browse_is_seen_by_its_methods():
    assert isinstance(MemoryBroker(), QueueBrowser)
    assert not isinstance(MemoryBackend(), QueueBrowser)
