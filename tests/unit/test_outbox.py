"""What becomes of a settlement whose lease has ended before it could be sent."""

from random import Random

import pytest

from chicory.backoff import Backoff
from chicory.lease import LeaseKeeper
from chicory.message import Settlement
from chicory.outbox import Outbox
from chicory.testing import a_delivery


class NobodyIsAsked:
    async def settle(self, batch):
        raise AssertionError(f"sent, and not ours any more: {batch}")


@pytest.fixture
def lost():
    return []


@pytest.fixture
def leases(clock, lost):
    return LeaseKeeper(clock, Random(1), on_lost=lost.append)


@pytest.fixture
def outbox(clock, leases, lost):
    backoff = Backoff(clock, Random(1))
    return Outbox(NobodyIsAsked(), None, leases, backoff, on_lost=lost.append, on_room=lambda: None)


async def test_a_settlement_that_comes_too_late_is_withheld_and_reported_as_lost(outbox, leases, lost, clock):
    late = a_delivery(lease_seconds=30, received_at=clock.monotonic())
    leases.hold(late)
    await clock.advance(26)  # the lease thread has not noticed: this process stood still

    await outbox.settled([Settlement(delivery=late)])

    assert lost == [late]
    assert len(leases) == outbox.waiting == 0


async def test_what_was_reported_as_lost_already_is_not_reported_again(outbox, leases, lost, clock):
    late = a_delivery(lease_seconds=30, received_at=clock.monotonic())
    leases.hold(late)
    leases.release(late.receipt)

    await outbox.settled([Settlement(delivery=late)])

    assert lost == []
