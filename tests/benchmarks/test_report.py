"""What the benchmarks say of numbers: targets, tables, comparison, the plan of a run, and whose a sample is."""

import json

import pytest
from benchmarks.comparison import compare
from benchmarks.environments import ROOT, Environment, contenders
from benchmarks.measures import BY_KEY, FLOORS, MEASURES
from benchmarks.pages import with_run
from benchmarks.profiling import part_of, shares, table
from benchmarks.report import markdown
from benchmarks.runner import BY_NAME, ONCE, Turn, Wish, medians_of, new_results, plan
from benchmarks.targets import TARGETS, verdicts


def about(title, role, *, broker="redis"):
    facts = {"title": title, "broker": broker, "guarantee": "at least once", "at_least_once": True, "role": role, "scale": 1}
    return {"about": facts, "notes": "", "workloads": ["publish", "run_results", "backlog", "backlog_1m"]}


@pytest.fixture
def results():
    found = new_results(Wish(n=10, repeat=3))
    found["contenders"] = {
        "chicory_redis": about("chicory", "ours"),
        "saq": about("SAQ", "peer"),
        "floor": about("bare", "floor"),
    }
    return found


def add(results, contender, **numbers):
    repetition = len([entry for entry in results["runs"] if entry["contender"] == contender])
    entry = {"repetition": repetition, "workload": "publish", "contender": contender, "numbers": numbers, "others_cores": 0.0}
    results["runs"].append(entry)


# --- targets -----------------------------------------------------------------------------------


def test_a_target_speaks_of_a_measure_that_there_is():
    assert [target.key for target in TARGETS if target.key not in BY_KEY] == []
    assert [t.of for t in TARGETS if t.of.startswith("own:") and t.of[4:] not in BY_KEY] == []


def test_no_two_measures_have_one_name():
    keys = [measure.key for measure in (*MEASURES, *FLOORS)]

    assert len(keys) == len(set(keys))
    assert {key for measure in MEASURES for key in measure.floors.values()} <= {measure.key for measure in FLOORS}


@pytest.mark.parametrize(
    ("numbers", "peer", "said"),
    [
        ({"publish_gather": 40_000}, {"publish_gather": 5_000}, ["met", "met"]),
        ({"publish_gather": 17_500}, {"publish_gather": 5_000}, ["missed: 0.50 of it", "missed: 0.88 of it"]),
        ({"publish_gather": 40_000}, {}, ["met", "no reference"]),
        ({"trip_p50": 0.6}, {}, ["met"]),
        ({"trip_p50": 2.4}, {}, ["missed: 0.50 of it"]),
        ({"commands": 0.0}, {}, ["met"]),
        ({"run_results": 20_000, "run_two": 26_000}, {"run_results": 1_600}, ["met", "missed: 0.96 of it", "met"]),
    ],
    ids=["both", "neither", "no peer", "small", "not small enough", "nothing at all", "times its own"],
)
def test_what_is_said_of_targets(results, numbers, peer, said):
    add(results, "chicory_redis", **numbers)
    add(results, "saq", **peer)

    found = verdicts(results["contenders"], medians_of(results))

    assert [verdict.text() for verdict in found] == said


# --- contenders --------------------------------------------------------------------------------


def test_every_contender_has_an_adapter_and_its_own_requirements():
    folder = ROOT / "benchmarks" / "contenders"
    adapters = {path.stem for path in folder.glob("*.py") if not path.stem.startswith(("of_", "__"))}

    assert adapters == set(contenders())
    assert contenders()[:3] == ["chicory_nats", "chicory_redis", "chicory_sqlite"]
    assert {target.of for target in TARGETS if target.of and ":" not in target.of} <= adapters


def test_a_contender_whose_plugin_is_not_here_says_why(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.environments.ROOT", tmp_path)

    assert Environment("chicory_nats").missing() == "there is no ., plugins/chicory-nats in this repository"
    assert Environment("saq").missing() is None


# --- the tables --------------------------------------------------------------------------------


def test_a_row_holds_the_median_its_spread_the_best_peer_and_the_floor(results):
    for rate in (20_000, 10_000, 30_000):
        add(results, "chicory_redis", run_results=rate)
    add(results, "saq", run_results=1_600)
    add(results, "floor", redis_drain=40_000)

    row = next(line for line in markdown(results).splitlines() if line.startswith("| run, results stored |"))

    cells = [cell.strip() for cell in row.split("|")[1:-1]]
    assert cells[:5] == ["run, results stored", "20,000/s (10,000-30,000)", "SAQ, 1,600/s", "12.50x", "0.50x"]
    assert cells[5:] == [">= 20,000/s<br>>= 13x SAQ", "met<br>missed: 0.96 of it"]


def test_the_best_of_those_that_promise_at_least_once_stands_beside_a_better_one_that_does_not(results):
    results["contenders"]["huey"] = about("huey", "peer")
    results["contenders"]["huey"]["about"] |= {"at_least_once": False, "guarantee": "at most once"}
    add(results, "chicory_redis", publish_one=4_000)
    add(results, "saq", publish_one=2_000)
    add(results, "huey", publish_one=5_000)

    row = next(line for line in markdown(results).splitlines() if line.startswith("| publish, one"))

    assert "| huey (at most once), 5,000/s<br>SAQ, 2,000/s | 0.80x<br>2.00x |" in row


def test_contenders_of_other_brokers_are_not_compared(results):
    results["contenders"]["other"] = about("other", "peer", broker="nats")
    add(results, "chicory_redis", run_results=20_000)
    add(results, "other", run_results=90_000)

    row = next(line for line in markdown(results).splitlines() if line.startswith("| run, results stored | 20,000/s"))

    assert "other" not in row


def test_what_failed_what_was_skipped_and_what_was_disturbed_is_said(results):
    add(results, "chicory_redis", run_results=20_000)
    results["runs"][0]["others_cores"] = 1.5
    results["failures"].append({"contender": "saq", "workload": "publish", "error": "…"})
    results["skipped"]["chicory_nats"] = "there is no plugins/chicory-nats in this repository"

    said = markdown(results)

    assert "FAILED: saq publish." in said
    assert "Skipped: chicory_nats: there is no plugins/chicory-nats" in said
    assert "chicory_redis publish (1.5)" in said


def test_a_run_replaces_what_stands_between_the_marks():
    page = "before\n<!-- begin: a run -->\nold\n<!-- end: a run -->\nafter\n"

    assert with_run(page, "new") == "before\n<!-- begin: a run -->\n\nnew\n\n<!-- end: a run -->\nafter\n"
    with pytest.raises(ValueError, match="begin: a run"):
        with_run("no marks", "new")


# --- comparison --------------------------------------------------------------------------------


def test_regressions_are_marked_for_rates_and_for_what_should_be_small(results):
    after = json.loads(json.dumps(results))
    add(results, "saq", run_results=1_000, trip_p50=2.0, publish_one=100)
    add(after, "saq", run_results=500, trip_p50=4.0, publish_one=110)

    said, regressions = compare(results, after)

    assert regressions == 2
    assert "| run, results stored | saq | 1,000 | 500 | 0.50x | REGRESSION |" in said
    assert "| round trip, idle, p50 | saq | 2 | 4 | 0.50x | REGRESSION |" in said
    assert "| publish, one await after another | saq | 100 | 110 | 1.10x |  |" in said


# --- the plan ----------------------------------------------------------------------------------


def test_contenders_take_turns_and_long_workloads_run_once(results):
    turns = list(plan(results, Wish(contenders=["chicory_redis", "saq"], n=10, repeat=2)))

    first = [(turn.workload, turn.contender) for turn in turns if turn.repetition == 0]
    assert first[:3] == [("publish", "chicory_redis"), ("publish", "saq"), ("run_results", "chicory_redis")]
    assert {turn.workload for turn in turns if turn.repetition == 1} == {"publish", "run_results"}
    assert not BY_NAME & {turn.workload for turn in turns}
    assert BY_NAME <= ONCE


def test_a_workload_asked_for_by_name_is_the_only_one(results):
    turns = list(plan(results, Wish(contenders=["saq"], workloads=["backlog_1m"], n=10, repeat=3)))

    assert turns == [Turn(repetition=0, workload="backlog_1m", contender="saq")]


# --- samples -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frames", "part"),
    [
        (["main (app.py:3)", "Pump.run (chicory/pump.py:80)", "list_append (python3.11)"], "core: pump, worker, leases, clock"),
        (
            ["Pump.run (chicory/pump.py:80)", "run (chicory_redis/broker.py:9)", "pack (redis/connection.py:5)"],
            "client library",
        ),
        (["Pump.run (chicory/pump.py:80)", "run (chicory_redis/broker.py:9)", "wait (threading.py:5)"], "broker plugin"),
        (["_bootstrap (threading.py:5)"], "interpreter"),
    ],
    ids=["inside the interpreter", "a library", "inside the standard library", "nobody's"],
)
def test_a_sample_belongs_to_the_innermost_part(frames, part):
    assert part_of(frames) == part


def test_samples_that_wait_are_left_out():
    stacks = [
        "run (chicory/pump.py:1) 3",
        "run (chicory/codec.py:1) 1",
        "run (chicory/pump.py:1);epoll_wait (libc.so.6) 50",
        "run (chicory/lease.py:1);PyThread_acquire_lock_timed (python3.11);0x7f16 (libc.so.6) 50",
        "run (chicory/execution.py:1);0x7f16 (libc.so.6) 50",
    ]

    assert shares(stacks) == {"core: pump, worker, leases, clock": 0.75, "core: codec and messages": 0.25}


def test_the_table_of_a_profile_adds_up():
    said = table("run", {"event loop": 0.75, "client library": 0.25}, {"user": 40.0, "kernel": 10.0, "wall": 60.0})

    assert "| event loop | 30.0 | 60% |" in said
    assert "| the kernel, in system calls | 10.0 | 20% |" in said
    assert "| all | 50.0 | |" in said
