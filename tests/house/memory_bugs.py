"""Small bugs for the memory broker, one at a time: a pytest plugin that a run of the suites loads with ``-p memory_bugs``.

``CHICORY_TEST_BUG`` names one. Each is a change of the source, as somebody could have made it; what is not found stops the run.
"""

import importlib.util
import os
import sys
from pathlib import Path

BUGS = {
    "a settled message stays": ("memory_store", "            self.remove(own)\n", ""),
    "no fence": ("memory_store", "Settled.DONE if message.receipt == delivery.receipt else Settled.LOST", "Settled.DONE"),
    "a fence that knows the consumer only": (
        "memory_store",
        "message.receipt == delivery.receipt",
        "(message.receipt or '').partition(':')[0] == delivery.receipt.partition(':')[0]",
    ),
    "a delayed message comes early": ("memory_store", "self.delayed[0][0] <= now:", "self.delayed[0][0] <= now + 10:"),
    "a header is dropped": (
        "memory_store",
        "envelope=message.envelope,",
        "envelope=__import__('msgspec').structs.replace(message.envelope, "
        'body=message.envelope.body.replace(b\'"headers":{"a":"1"\', b\'"headers":{\')),',
    ),
    "the hop is dropped": (
        "memory_store",
        "envelope=message.envelope,",
        "envelope=__import__('msgspec').structs.replace(message.envelope, hop=0),",
    ),
    "priorities are upside down": ("memory_store", "return (-self.envelope.priority,", "return (self.envelope.priority,"),
    "the last comes first": ("memory_store", "self.due, self.order,", "self.due, -self.order,"),
    "a repeat is a message of its own": ("memory_store", "return envelope.dedup_key in self.seen", "return False"),
    "a later hop is a repeat": ("memory_store", "return envelope.dedup_key in self.seen", "return envelope.id in self.seen"),
    "deliveries are not counted": ("memory_store", "        message.count += 1\n", "        message.count = 1\n"),
    "a lease is too short": ("memory_store", "message.lease_until = now + seconds", "message.lease_until = now + seconds / 2"),
    "a lease never ends": ("memory_store", "if message.lease_until <= now:", "if message.lease_until <= 0:"),
    "more than the limit": ("memory_store", "len(deliveries) < limit", "len(deliveries) <= limit"),
    "a note ends the delivery": ("memory_store", "        if settlement.ends:", "        if settlement:"),
    "half of what follows is lost": ("memory_store", "in settlement.publish:", "in settlement.publish[:1]:"),
    "a refused settlement is published": (
        "memory_store",
        "        if answer is not Settled.DONE:\n",
        "        if answer is not Settled.DONE:\n            self.publish(settlement.publish, pending=joined)\n",
    ),
    "the result stays behind": ("memory_store", "if joined and settlement.result is not None:", "if joined is None:"),
    "extending adds": ("memory", "message.lease_until = now + store", "message.lease_until += store"),
    "extending tells of no loss": ("memory", "lost.add(receipt)", "pass"),
    "purging takes what runs": (
        "memory",
        "self._delete(m.envelope.id for m in self._free(queue))",
        "self._delete([i for i, m in self.store.messages.items() if m.envelope.queue == queue])",
    ),
    "what runs counts as ready": ("memory", "if m.receipt is None and m.due <= now]", "if m.due <= now]"),
    "moving copies": (
        "memory",
        "                store.remove(message_id)\n                store.place(envelope)\n",
        "                old = store.messages[message_id].envelope\n                store.place(envelope)\n"
        "                store.place(__import__('msgspec').structs.replace(old, id=old.id + ' copy'))\n",
    ),
    "a queue in use gets another lease": ("memory", "if not any(now - seen <=", "if any([True]) or not any(now - seen <="),
}


def break_memory(name: str) -> None:
    """Put the bug of that name into the module that it belongs to, before anybody has imported it."""
    module, before, after = BUGS[name]
    assert f"chicory.{module}" not in sys.modules, f"chicory.{module} is imported already"
    spec = importlib.util.find_spec(f"chicory.{module}")
    source = Path(spec.origin).read_text(encoding="utf-8")
    assert source.count(before) == 1, f"{before!r} is not once in chicory.{module}: write the bug {name!r} anew"
    broken = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = broken
    exec(compile(source.replace(before, after), spec.origin, "exec"), broken.__dict__)


if (chosen := os.environ.get("CHICORY_TEST_BUG")) is not None:
    break_memory(chosen)
