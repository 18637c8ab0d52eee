"""What every step of a history needs: consumers on one place, a clock, and what is in hand; publishing and time."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack, ExitStack
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from msgspec import Struct

from chicory.clock import Clock
from chicory.codec import revise
from chicory.message import Delivery, Envelope
from chicory.testing.builders import an_envelope
from chicory.testing.clock import FakeClock
from chicory.testing.expected import ExpectedQueues, Moment

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from chicory.broker import Broker

__all__ = ["CONSUMERS", "IN_HAND", "LONG", "QUEUES", "Histories", "InHand", "delays", "model_settings", "several", "some"]

T = TypeVar("T")

QUEUES = ("default", "other", "default.dlq")
CONSUMERS = 3
IN_HAND = 40
"""Deliveries that are remembered, to act on them late."""
LONG = 25
"""Steps that a history gets before it may be drained."""
_ANSWER_WITHIN = 30.0
"""Real seconds for one answer of the broker: none is a failure, not an endless test."""
_EXAMPLES = int(os.environ.get("CHICORY_TEST_EXAMPLES", "100"))
_STEPS = 50

some = st.integers(0, 10**6)
"""A choice among as many things as there are then: taken modulo their number."""
several = st.lists(some, min_size=1, max_size=5)
delays = st.sampled_from([0.0, 0.0, 0.0, 0.5, 2.2, 20.3])
"""In leases."""


def model_settings(**changes: Any) -> settings:
    """100 histories of 50 steps; ``CHICORY_TEST_EXAMPLES`` in the environment gives another number of histories."""
    defaults: dict[str, Any] = {"max_examples": _EXAMPLES, "stateful_step_count": _STEPS, "deadline": None}
    return settings(**{**defaults, "suppress_health_check": list(HealthCheck), "print_blob": True, **changes})


class InHand(Struct, frozen=True):
    """A delivery, and which consumer got it: whatever has become of it since."""

    consumer: int
    delivery: Delivery


class Histories(RuleBasedStateMachine):
    """The ground of `BrokerModel`: it opens and closes, publishes, and lets time pass."""

    clock: Clock
    lease = 30.0
    """Seconds of a lease."""
    promptly = True
    """A lease that has ended is seen by the very next receive. If False: by one that waits for ``patience`` seconds."""
    patience = 5.0
    grain = 0.0
    """Seconds by which what is delayed may be late."""

    def __init__(self) -> None:
        super().__init__()
        if not hasattr(type(self), "clock"):
            self.clock = FakeClock()
        self.resources = ExitStack()
        """Closed after each history: for the place."""
        self._loop = asyncio.new_event_loop()
        self._brokers: list[Broker] = []
        self._stacks: list[AsyncExitStack] = []
        self._hand: list[InHand] = []
        self._ids = 0
        self._unsure: set[tuple[int, str]] = set()
        """Consumers that were forgotten in a queue: whether they count again later is the broker's affair."""
        self._age = 0
        """Steps since the queues were empty."""

    @classmethod
    def check(cls, **changes: Any) -> None:
        """Play histories until one breaks the contract, or there were enough; *changes* are settings of hypothesis."""
        run_state_machine_as_test(cls, settings=model_settings(**changes))

    def new_place(self) -> Callable[[], Broker]:
        """A place that is empty, as a callable that returns a new unopened broker on it, with an identity of its own."""
        raise NotImplementedError(f"{type(self).__name__} must give `new_place`")

    # --- beginning and end -----------------------------------------------------------------------

    @initialize()
    def open(self) -> None:
        self.make_broker = self.new_place()
        for _ in range(CONSUMERS):
            self._stacks.append(AsyncExitStack())
            self._brokers.append(self.make_broker())
        for number in range(CONSUMERS):
            self._open(number)
        self.capabilities = self._brokers[0].capabilities
        self.expected = ExpectedQueues(self.capabilities, self.lease, promptly=self.promptly, grain=self.grain)

    def teardown(self) -> None:
        try:
            for stack in self._stacks:
                self._run(stack.aclose())
        finally:
            self._loop.close()
            self.resources.close()

    def _open(self, number: int) -> None:
        broker = self._brokers[number]
        self._run(self._stacks[number].enter_async_context(broker))
        in_force = self._run(broker.prepare(QUEUES, self.lease))
        assert set(in_force.values()) == {self.lease}, f"a lease of {self.lease} s was asked for: {in_force}"

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(asyncio.wait_for(work, _ANSWER_WITHIN))

    def _ask(self, work: Coroutine[Any, Any, T]) -> tuple[T, Moment]:
        """The broker's answer, and when it was given."""
        begin = self._now()
        answer = self._run(work)
        return answer, Moment(begin, self._now())

    def _now(self) -> float:
        return self.clock.now().timestamp()

    def _at(self) -> Moment:
        return Moment(self._now(), self._now())

    # --- publishing ------------------------------------------------------------------------------

    @rule(queue=st.sampled_from(QUEUES), delay=delays, priorities=st.lists(st.sampled_from([0, 5, 9]), min_size=1, max_size=4))
    def publish(self, queue: str, delay: float, priorities: list[int]) -> None:
        envelopes = [self._new(queue, delay, priority) for priority in priorities]
        _, at = self._ask(self._brokers[0].publish(envelopes))
        for envelope in envelopes:
            self.expected.publish(envelope, at)

    def _new(self, queue: str, delay: float = 0.0, priority: int = 0) -> Envelope:
        self._ids += 1
        levels = self.capabilities.priorities
        kept = priority if levels >= 10 else 9 * (priority == 9 and levels > 1)
        return an_envelope(id=f"m{self._ids}", queue=queue, due=self._due(delay), priority=kept)

    def _due(self, delay: float) -> Any:
        if not delay or not self.capabilities.delayed:
            return None
        return self.clock.now() + timedelta(seconds=delay * self.lease)

    @precondition(lambda self: self._known())
    @rule(which=some, times=st.integers(1, 2))
    def publish_again(self, which: int, times: int) -> None:
        known = self._known()
        envelope = known[which % len(known)]
        is_dropped = self.expected.is_dropped(envelope, self._at())
        if is_dropped is None:
            return
        _, at = self._ask(self._brokers[1].publish([envelope] * times))
        if not is_dropped and self.expected.is_dropped(envelope, at) is False:
            self._hand = [held for held in self._hand if held.delivery.envelope.id != envelope.id]  # of its former life
            self.expected.publish(envelope, at)

    def _known(self) -> list[Envelope]:
        live = [message.envelope for message in self.expected.messages.values()]
        return live + [envelope for envelope, _ in self.expected.ended.values()]

    @precondition(lambda self: self.expected.ended)
    @rule(which=some, queue=st.sampled_from(QUEUES))
    def replay(self, which: int, queue: str) -> None:
        ended = [envelope for envelope, _ in self.expected.ended.values()]
        envelope = revise(ended[which % len(ended)], queue=queue, eta=None)
        _, at = self._ask(self._brokers[2].publish([envelope]))
        self.expected.publish(envelope, at)

    # --- time, closing, cleaning -----------------------------------------------------------------

    @rule(leases=st.sampled_from([0.31, 0.73, 1.1, 1.1, 4.37]))
    def pass_time(self, leases: float) -> None:
        self._pass(leases)

    def _pass(self, leases: float) -> None:
        seconds = leases * self.lease
        self._run(self.clock.advance(seconds) if isinstance(self.clock, FakeClock) else asyncio.sleep(seconds))

    @rule(who=some)
    def reopen(self, who: int) -> None:
        """A consumer goes, and another comes: what the former held comes again when its leases end."""
        consumer = who % CONSUMERS
        self._run(self._stacks[consumer].aclose())
        self._replace(consumer)

    @precondition(lambda self: self.capabilities.persistent)
    @rule()
    def restart(self) -> None:
        """All consumers go before any comes back."""
        for stack in self._stacks:
            self._run(stack.aclose())
        for consumer in range(CONSUMERS):
            self._replace(consumer)

    def _replace(self, consumer: int) -> None:
        self._brokers[consumer] = self.make_broker()
        self._hand = [held for held in self._hand if held.consumer != consumer]
        self._unsure = {pair for pair in self._unsure if pair[0] != consumer}
        self._open(consumer)
