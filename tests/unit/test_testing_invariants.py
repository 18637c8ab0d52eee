"""The audit of the fault suite finds each promise that was broken, and nothing where none was."""

import pytest

from chicory.message import TaskState
from chicory.testing.faults.invariants import Account, audit
from chicory.testing.faults.ledger import Fact, Ledger

DONE = TaskState.SUCCESS


def ran(task_id, pid, start, end=None, how="end", retries=0):
    facts = [Fact("start", task_id, pid, start, retries, "faults.work")]
    return facts if end is None else [*facts, Fact(how, task_id, pid, end, retries)]


def found(facts, **account):
    """What the audit says is wrong, by the names of the invariants."""
    given = {"accepted": ["a"], "states": {"a": DONE}, "lease": 2.0, **account}
    result = audit(sorted(facts, key=lambda fact: fact.at), Account(**given))
    return [problem.split(" ")[0] for problem in result.problems]


def test_all_is_well():
    facts = ran("a", 1, 0.0, 1.0, "failed") + ran("a", 2, 2.0, 3.0, retries=1)

    assert found(facts, results={"a": 2}) == []


def test_accepted_and_never_started():
    assert found([], accepted=["a"]) == ["I1"]


@pytest.mark.parametrize("states", [{}, {"a": TaskState.PENDING}, {"a": TaskState.RETRY}])
def test_accepted_and_not_ended(states):
    assert found(ran("a", 1, 0.0, 1.0), states=states) == ["I1"]


def test_more_extra_runs_than_were_in_flight():
    facts = [Fact("killed", "", 1, 0.5), *ran("a", 1, 0.0), *ran("a", 2, 2.0, 3.0)]

    assert found(facts, in_flight=0) == ["I2"]
    assert found(facts, in_flight=1) == []


def test_two_runs_at_once():
    assert found(ran("a", 1, 0.0, 3.0) + ran("a", 2, 2.0, 4.0), in_flight=9) == ["I3"]


def test_a_run_that_ended_with_its_process_overlaps_nothing():
    facts = [*ran("a", 1, 0.0), Fact("killed", "", 1, 1.0), *ran("a", 2, 2.0, 4.0)]

    assert found(facts, in_flight=9) == []


def test_a_frozen_process_may_go_on_for_a_moment():
    frozen = [Fact("frozen", "", 1, 0.5), Fact("thawed", "", 1, 5.0)]

    assert found([*ran("a", 1, 0.0, 5.2, "cancelled"), *frozen, *ran("a", 2, 3.0, 6.0)], in_flight=9) == []
    assert found([*ran("a", 1, 0.0, 9.0), *frozen, *ran("a", 2, 3.0, 6.0)], in_flight=9) == ["I3"]


def test_a_freeze_shorter_than_a_lease_excuses_nothing():
    frozen = [Fact("frozen", "", 1, 0.5), Fact("thawed", "", 1, 1.0)]

    assert found([*ran("a", 1, 0.0, 1.5), *frozen, *ran("a", 2, 0.9, 2.0)], in_flight=9) == ["I3"]


def test_the_result_of_a_run_that_was_overtaken():
    facts = [*ran("a", 1, 0.0), Fact("killed", "", 1, 1.0), *ran("a", 2, 2.0, 3.0)]

    assert found(facts, in_flight=9, results={"a": 1}) == ["I4"]
    assert found(facts, in_flight=9, results={"a": 2}) == []


def test_a_run_that_was_cancelled_overtakes_nothing():
    facts = ran("a", 1, 0.0, 1.0) + ran("a", 2, 2.0, 2.1, "cancelled")

    assert found(facts, in_flight=9, results={"a": 1}) == []


def test_at_most_once_started_twice():
    facts = ran("a", 1, 0.0, 1.0) + ran("a", 2, 2.0, 3.0, retries=1)

    assert found(facts, at_most_once=frozenset("a")) == ["I5"]


def test_at_most_once_may_be_lost_if_its_record_says_so():
    assert found([], states={"a": TaskState.FAILURE}, at_most_once=frozenset("a")) == []


def test_a_publish_that_nobody_is_sure_of_ran_twice():
    facts = ran("b", 1, 0.0, 1.0) + ran("b", 2, 2.0, 3.0) + ran("a", 1, 0.0, 1.0)

    assert found(facts, unsure=["b"]) == ["I6", "I2"]
    assert found(ran("b", 1, 0.0, 1.0) + ran("a", 1, 0.0, 1.0), unsure=["b"]) == []


def test_messages_are_left():
    assert found(ran("a", 1, 0.0, 1.0), left=3) == ["I7"]


def test_what_is_broken_is_named_with_some_ids():
    ids = [f"t{n}" for n in range(9)]

    text = str(audit([], Account(accepted=ids, states=dict.fromkeys(ids, DONE))))

    assert "BROKEN\n  I1 lost: accepted, and never started: 9 (t0, t1, t2, t3, t4)" in text


def test_a_ledger_keeps_what_several_wrote(tmp_path):
    first, second = Ledger(tmp_path / "ledger"), Ledger(tmp_path / "ledger")

    first.note("start", "a", retries=2, detail="faults.work")
    second.note("killed", pid=17)

    assert [(fact.kind, fact.task_id, fact.retries) for fact in first.facts()] == [("start", "a", 2), ("killed", "", 0)]
    assert [fact.pid for fact in second.facts("killed")] == [17]
    first.close()
    second.close()


def test_a_fact_that_is_half_written_is_not_read_yet(tmp_path):
    ledger = Ledger(tmp_path / "ledger")
    assert ledger.facts() == []
    ledger.note("start", "a")
    with ledger.path.open("ab") as file:
        file.write(b'["start","b"')

    assert [fact.task_id for fact in ledger.facts()] == ["a"]
    ledger.close()


# --- stores that do not know who holds a message ------------------------------------------------------

KILLED = Fact("server_killed", "", 9, 2.0)


def test_a_server_without_a_fence_may_hand_out_again_what_was_in_work_when_it_was_killed():
    facts = [*ran("a", 1, 1.0, 4.0), KILLED, *ran("a", 2, 3.0, 5.0)]

    assert found(facts, in_flight=9, fenced=False) == []
    assert found(facts, in_flight=9, fenced=True) == ["I3"]


def test_long_after_the_server_was_killed_nothing_is_excused():
    facts = [KILLED, *ran("a", 1, 5.0, 20.0), *ran("a", 2, 12.0, 15.0)]

    assert found(facts, in_flight=9, fenced=False) == ["I3"]


def test_a_result_stands_whose_message_the_killed_server_forgot_the_end_of():
    facts = [*ran("a", 1, 1.0, 1.5), KILLED, *ran("a", 2, 30.0, 31.0)]

    assert found(facts, in_flight=9, fenced=False, results={"a": 1}) == []
    assert found(facts, in_flight=9, fenced=True, results={"a": 1}) == ["I4"]


def test_a_result_that_was_told_late_stands_if_the_last_run_told_nobody():
    facts = [*ran("a", 1, 0.0, 1.0), *ran("a", 2, 3.0, 4.0), Fact("killed", "", 2, 4.2)]

    assert found(facts, in_flight=9, fenced=False, results={"a": 1}) == []
    assert found(facts, in_flight=9, fenced=True, results={"a": 1}) == ["I4"]
    assert found(facts[:-1], in_flight=9, fenced=False, results={"a": 1}) == ["I4"]


def test_what_was_about_to_start_when_its_process_was_frozen_overtakes_nothing_without_a_fence():
    frozen = [Fact("frozen", "", 2, 0.5), Fact("thawed", "", 2, 5.0)]
    on_waking = [*ran("a", 1, 3.0, 3.1), *frozen, *ran("a", 2, 5.01, 5.02)]
    later = [*ran("a", 1, 3.0, 3.1), *frozen, *ran("a", 2, 5.5, 5.6)]

    assert found(on_waking, in_flight=9, results={"a": 1}, fenced=False) == []
    assert found(on_waking, in_flight=9, results={"a": 1}, fenced=True) == ["I4"]
    assert found(later, in_flight=9, results={"a": 1}, fenced=False) == ["I4"]


@pytest.mark.parametrize("fenced", [True, False])
def test_what_a_worker_was_handed_when_it_woke_has_won(fenced):
    frozen = [Fact("frozen", "", 2, 0.6), Fact("thawed", "", 2, 5.0)]
    facts = [*ran("a", 1, 0.5, 0.55), *frozen, *ran("a", 2, 5.01, 5.02)]

    assert found(facts, in_flight=9, results={"a": 2}, fenced=fenced) == []
