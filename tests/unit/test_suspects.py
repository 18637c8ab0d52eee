"""Messages that were delivered often: kept apart, and their count kept."""

from datetime import timedelta

import msgspec
import pytest

from chicory.codec import Arguments, encode
from chicory.message import TaskMessage
from chicory.suspects import DELIVERED_BEFORE, choose, deliveries_so_far, is_suspect, put_back
from chicory.testing import a_delivery, an_envelope


def delivered(count, before=None, hop=0):
    headers = {} if before is None else {DELIVERED_BEFORE: before}
    message = TaskMessage(id="a", name="t", headers=headers)
    body = encode(message, Arguments(content_type="application/json", data=b"{}")).body
    return a_delivery(envelope=an_envelope(id="a", body=body, hop=hop), delivery_count=count)


@pytest.mark.parametrize(
    ("count", "before", "hop", "suspect"),
    [(1, None, 0, False), (2, None, 0, False), (3, None, 0, True), (1, None, 4, False), (1, "2", 1, True), (1, "1", 1, False)],
)
def test_from_its_third_delivery_on_a_message_is_a_suspect(count, before, hop, suspect):
    assert is_suspect(delivered(count, before, hop)) is suspect


def test_an_unreadable_message_is_judged_by_the_brokers_count():
    assert not is_suspect(a_delivery(envelope=an_envelope(body=b"\xff", hop=1)))
    assert is_suspect(a_delivery(envelope=an_envelope(body=b"\xff"), delivery_count=3))


def test_one_suspect_is_kept_and_everybody_else_stays():
    fresh, first, second = delivered(1), delivered(3), delivered(5)

    assert choose([fresh, first, second], may_keep=True) == ([fresh, first], [second])
    assert choose([first, fresh, second], may_keep=False) == ([fresh], [first, second])


def test_putting_back_counts_former_deliveries_but_not_this_one(clock):
    delivery = delivered(4)

    (envelope,) = put_back(delivery, clock.now() + timedelta(seconds=1)).publish

    headers = msgspec.json.decode(envelope.body)["headers"]
    assert (envelope.hop, headers) == (1, {DELIVERED_BEFORE: "3"})
    again = a_delivery(envelope=envelope, delivery_count=1)
    assert deliveries_so_far(again, headers) == 4
    assert is_suspect(again)


@pytest.mark.parametrize("odd", ["", "-3", "many", "1.5"])
def test_a_count_that_is_no_number_counts_for_nothing(odd):
    assert deliveries_so_far(a_delivery(delivery_count=2), {DELIVERED_BEFORE: odd}) == 2
