"""The model of a broker: memory keeps to it, and a broker that breaks one promise is found out."""

import pytest
from hypothesis import Phase
from msgspec.structs import replace

from chicory.memory import MemoryBroker, MemoryStore
from chicory.message import Settled
from chicory.testing import BrokerModel


class MemoryModel(BrokerModel):
    def new_place(self):
        store = MemoryStore(self.clock)
        return lambda: MemoryBroker(store=store)


def test_memory_keeps_the_contract_in_any_history():
    MemoryModel.check()


# --- negative controls: each breaks one promise ------------------------------------------------------


class ForgetsTheFence(MemoryStore):
    def answer(self, delivery):
        return Settled.DONE if super().answer(delivery) is Settled.LOST else super().answer(delivery)


class SaysGoneWhenAskedAgain(MemoryStore):
    def answer(self, delivery):
        return Settled.LOST if super().answer(delivery) is Settled.GONE else super().answer(delivery)


class DropsFollowUps(MemoryStore):
    def settle(self, settlement, *, joined):
        return super().settle(replace(settlement, publish=()), joined=joined)


class PublishesWhatARefusedOneAsksFor(MemoryStore):
    def settle(self, settlement, *, joined):
        answer = super().settle(settlement, joined=joined)
        if answer is Settled.LOST and settlement.ends:
            self.publish([e for e in settlement.publish if e.id != settlement.delivery.envelope.id], pending=False)
        return answer


class EndsOnANote(MemoryStore):
    def settle(self, settlement, *, joined):
        return super().settle(replace(settlement, ends=True), joined=joined)


class DeliversUnderALiveLease(MemoryStore):
    def _expire(self, now):
        super()._expire(now + 25)


class NeverExpires(MemoryStore):
    def _expire(self, now):
        pass


class IgnoresDelay(MemoryStore):
    def place(self, envelope):
        super().place(envelope)
        self.messages[envelope.id].due = 0.0
        self._make_ready(self.messages[envelope.id])


class IgnoresPriority(MemoryStore):
    def place(self, envelope):
        super().place(replace(envelope, priority=0))
        self.messages[envelope.id].envelope = envelope


class CountsNoRedelivery(MemoryStore):
    def _lease(self, message, now, consumer):
        message.count = 0
        return super()._lease(message, now, consumer)


class TakesRepeats(MemoryStore):
    def _is_repeat(self, envelope, *, pending):
        return False


class RemembersIdsForEver(MemoryStore):
    def _sweep(self):
        pass


class PurgesEveryQueue(MemoryBroker):
    async def purge(self, queue):
        return sum([await MemoryBroker.purge(self, name) for name in ("default", "other", "default.dlq")])


class PurgesWhatRuns(MemoryBroker):
    def _free(self, queue):
        return [m for m in self.store.messages.values() if m.envelope.queue == queue]


class ExtendsNothing(MemoryBroker):
    async def extend(self, receipts):
        return {receipt for receipt in receipts if receipt not in self.store.leased}


class ExtendsWhatIsLost(MemoryBroker):
    async def extend(self, receipts):
        await MemoryBroker.extend(self, receipts)
        return set()


class MovesWithoutRemoving(MemoryBroker):
    async def move(self, queue, replacements):
        return await MemoryBroker.move(self, queue, {i: replace(e, id=f"{i}+") for i, e in replacements.items()})


class LosesWhatClosingHeld(MemoryBroker):
    async def __aexit__(self, *exc):
        mine = [receipt for receipt in self.store.leased if receipt.startswith(self._consumer)]
        for receipt in mine if self._is_announced else ():
            self.store.remove(self.store.leased[receipt].envelope.id)
        await MemoryBroker.__aexit__(self, *exc)


class MiscountsWhatRuns(MemoryBroker):
    async def stats(self, queue):
        stats = await MemoryBroker.stats(self, queue)
        return replace(stats, ready=stats.ready + stats.running, running=0)


STORES = MemoryStore.__subclasses__()
BROKERS = MemoryBroker.__subclasses__()


@pytest.mark.timeout(300)  # one history in two hundred finds the rarest of them
@pytest.mark.parametrize("broken", [*STORES, *BROKERS], ids=lambda broken: broken.__name__)
def test_a_broken_broker_is_found_out_by_the_quick_profile(broken):
    class BrokenModel(BrokerModel):
        def new_place(self):
            store = broken(self.clock) if broken in STORES else MemoryStore(self.clock)
            return lambda: (broken if broken in BROKERS else MemoryBroker)(store=store)

    with pytest.raises(AssertionError):
        # Without shrinking: that it is found is the point, not how short the history can be.
        BrokenModel.check(
            derandomize=True, max_examples=4_000, database=None, phases=[Phase.generate], report_multiple_bugs=False
        )
