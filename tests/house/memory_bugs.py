"""Small bugs for the memory broker, one at a time, and a run of the suites with each.

``python tests/house/memory_bugs.py NAME...`` prints a line of JSON for each: how pytest ended, and which test failed first. Every run
is a fork of a process that has imported what takes long and knows nothing of the memory broker yet. A bug is a change of the
source, as somebody could have made it; what is not found there any more ends the run.
"""

import importlib
import importlib.util
import json
import os
import sys
import traceback
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SUITES = "tests/unit/test_memory.py"
CHOSEN = "TestMemoryBroker or TestMemoryJoined"
NO_BUG = ""
SLOW_IMPORTS = ("structlog", "chicory.plugins", "chicory.signature", "chicory.processes")

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


class _Failures:
    """A pytest plugin that notes which tests failed in their own code, and not in a fixture."""

    def __init__(self):
        self.tests = []

    def pytest_runtest_logreport(self, report):
        if report.failed and report.when == "call":
            self.tests.append(report.nodeid.rpartition("::")[2])


def _in_this_process(name):
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if name != NO_BUG:
        break_memory(name)
    failures = _Failures()
    unused = ["--assert=plain", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:hypothesispytest"]
    code = pytest.main([SUITES, "-k", CHOSEN, "--exitfirst", "--quiet", *unused], plugins=[failures])
    return json.dumps({"bug": name, "code": int(code), "failed": failures.tests})


def run_suites(name):
    """In a fork: the suites, to their first failure, with the bug of that name or with none."""
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        try:
            os.write(writing, _in_this_process(name).encode())
        except BaseException:  # noqa: BLE001 - the fork ends here, and whoever waits for its line sees why
            traceback.print_exc()
        finally:
            os._exit(0)  # what the fork is in the middle of is not its own
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read().decode()
    os.waitpid(child, 0)
    return told or json.dumps({"bug": name, "code": None, "failed": []})


if __name__ == "__main__":
    os.chdir(ROOT)
    for module in SLOW_IMPORTS:
        importlib.import_module(module)
    for wanted in sys.argv[1:]:
        print(run_suites(wanted), flush=True)
