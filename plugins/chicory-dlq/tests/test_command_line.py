"""``chicory dlq``, on a file that has dead letters in it."""

import asyncio
import json
import os
import pty
import subprocess
import sys
from importlib import import_module
from itertools import count

import pytest

from chicory import Worker, WorkerConfig
from chicory.cli import main
from chicory.errors import TaskFailedError
from chicory_dlq import DeadLetters

_NUMBERS = count()
TASKS = """
from chicory import Chicory

app = Chicory(broker="sqlite:///chicory.db")


@app.task(name="mail", queue="mail")
async def mail(to: str, copies: int = 1) -> str:
    if to == "nobody":
        raise OSError("no way to them")
    return f"{copies} to {to}"


@app.task(name="pay")
async def pay(amount: int) -> int:
    raise ValueError(f"{amount} is not possible")
"""


@pytest.fixture
def tasks(tmp_path, monkeypatch):
    """A project with three dead letters: the module, and their ids."""
    name = f"dlq_tasks_{next(_NUMBERS)}"
    (tmp_path / f"{name}.py").write_text(TASKS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    module = import_module(name)
    module.ids = asyncio.run(fail(module))
    yield module
    sys.modules.pop(name)


async def fail(module):
    settings = WorkerConfig(queue="mail,default", use_dead_letter_queue=True)
    async with module.app, Worker(module.app, settings):
        results = [await module.mail.delay("nobody"), await module.mail.delay("nobody", 2), await module.pay.delay(3)]
        for result in results:
            with pytest.raises(TaskFailedError):
                await result.get(timeout=30)
    return [result.task_id for result in results]


async def work_off(module):
    """Run what is ready; the state of each."""
    settings = WorkerConfig(queue="mail,default", use_dead_letter_queue=True)
    from chicory import AsyncResult

    async with module.app, Worker(module.app, settings):
        found = []
        for task_id in module.ids:
            try:
                found.append(await AsyncResult(task_id, module.app.backend).get(timeout=30))
            except TaskFailedError as error:
                found.append(error.error_type)
        return found


@pytest.fixture
def run(tasks, capsys):
    """Runs ``chicory dlq`` on the project: exit code, output, and what it said on standard error."""

    def run(command, *arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main(["dlq", command, tasks.__name__, *arguments])
        output, errors = capsys.readouterr()
        return caught.value.code, output, errors

    return run


@pytest.fixture
def left(tasks):
    """How many dead letters there are."""

    def left():
        async def ask():
            async with tasks.app:
                return await tasks.app.require(DeadLetters).count()

        return asyncio.run(ask())

    return left


def test_the_list_says_what_died_of_what(run, tasks):
    code, output, _ = run("list")

    head, *rows = output.splitlines()
    assert code == 0
    assert head.split() == ["ID", "TASK", "QUEUE", "REASON", "ERROR", "RETRIES", "AGE"]
    assert sorted(row.split()[0] for row in rows) == sorted(tasks.ids)
    assert any("OSError: no way to them" in row for row in rows)


def test_pages_and_filters_for_programs(run, tasks):
    _, output, _ = run("list", "--json", "--limit", "2", "--since", "1h")
    page = json.loads(output)
    _, output, _ = run("list", "--json", "--after", page["cursor"])
    rest = json.loads(output)

    assert sorted(letter["id"] for letter in page["letters"] + rest["letters"]) == sorted(tasks.ids)
    assert rest["cursor"] is None
    _, output, _ = run(
        "list", "--json", "--task", "pay", "--reason", "error", "--error-type", "ValueError", "--queue", "default"
    )
    (letter,) = json.loads(output)["letters"]
    assert (letter["id"], letter["error"], letter["retries"]) == (tasks.ids[2], "3 is not possible", 0)
    assert json.loads(run("list", "--json", "--until", "1h")[1])["letters"] == []
    assert run("list", "--queue", "empty")[1] == "no dead letter\n"


@pytest.mark.parametrize("moment", ["yesterday", "3w", "-1h", ""])
def test_what_is_no_moment_is_refused(run, moment):
    code, _, errors = run("list", "--since", moment)

    assert code == 2
    assert "takes a moment (2026-03-01T12:00+00:00), or a time before now" in errors


def test_one_is_shown_whole(run, tasks):
    code, output, _ = run("show", tasks.ids[1])
    assert code == 0
    for text in (
        "reason     error",
        "error      OSError: no way to them",
        'arguments  {"args":["nobody",2],"kwargs":{}}',
        "Traceback",
    ):
        assert text in output

    shown = json.loads(run("show", tasks.ids[1], "--json")[1])
    assert shown["arguments"] == {"args": ["nobody", 2], "kwargs": {}}
    assert (shown["history"], shown["content_type"]) == ([], "application/json")
    assert "in mail" in shown["traceback"]


def test_one_that_is_not_there(run):
    code, _, errors = run("show", "unknown-id")

    assert code == 1
    assert "no dead letter 'unknown-id'" in errors
    assert len(errors.splitlines()) == 1


def test_the_app_may_be_named_otherwise(tasks, run, capsys, monkeypatch):
    monkeypatch.setenv("CHICORY_APP", tasks.__name__)
    for words in (["show", tasks.ids[0]], ["show", "--app", f"{tasks.__name__}:app", tasks.ids[0]], ["list"], ["stats"]):
        with pytest.raises(SystemExit) as caught:
            main(["dlq", *words])
        assert caught.value.code == 0
    with pytest.raises(SystemExit) as caught:
        main(["dlq", "show", *tasks.ids])
    assert caught.value.code == 2
    assert "takes one id, not 3" in capsys.readouterr()[1]
    monkeypatch.delenv("CHICORY_APP")
    with pytest.raises(SystemExit):
        main(["dlq", "replay", "--all"])
    assert "name the app: module:attribute as the first word" in capsys.readouterr()[1]


def test_numbers(run):
    _, output, _ = run("stats", "--json")

    assert [(s["queue"], s["count"], s["reasons"], s["tasks"]) for s in json.loads(output)] == [
        ("default", 1, {"error": 1}, {"pay": 1}),
        ("mail", 2, {"error": 2}, {"mail": 2}),
    ]
    assert "mail" in run("stats")[1]
    assert run("stats", "--queue", "empty")[1] == "no dead letter\n"


def test_a_replay_with_other_arguments(run, tasks, left):
    code, output, _ = run("replay", tasks.ids[0], tasks.ids[1], "--set", "to=Ann", "--set", "copies=3")

    assert (code, output) == (0, "2 dead letters replayed\n")
    assert left() == 1
    assert asyncio.run(work_off(tasks)) == ["3 to Ann", "3 to Ann", "ValueError"]


def test_a_replay_that_fails_again_shows_its_history(run, tasks):
    assert json.loads(run("replay", "--all", "--json")[1]) == {"found": 3, "replayed": 3, "dry_run": False}
    asyncio.run(work_off(tasks))

    output = run("show", tasks.ids[0])[1]

    assert any(line.startswith("before") and "OSError: no way to them" in line for line in output.splitlines())


def test_a_dry_run_moves_nothing_and_checks_the_arguments(run, tasks, left):
    assert run("replay", "--task", "mail", "--dry-run", "--set", "copies=2")[:2] == (0, "2 dead letters would be replayed\n")
    assert json.loads(run("replay", "--all", "--dry-run", "--json")[1]) == {"found": 3, "replayed": 0, "dry_run": True}
    code, _, errors = run("replay", "--task", "mail", "--dry-run", "--set", "copies=lots")
    assert code == 1
    assert "keeps its arguments, and stays" in errors
    assert run("purge", "--dry-run")[1] == "3 dead letters would be deleted\n"
    assert run("delete", tasks.ids[0], "--dry-run")[1] == "1 dead letter would be deleted\n"

    assert left() == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["replay"], "say which: ids, a filter such as --task, or --all"),
        (["replay", "an-id", "--all"], "give ids, or a filter, or --all: not two of them"),
        (["replay", "an-id", "--task", "mail"], "give ids, or a filter, or --all: not two of them"),
        (["replay", "--all", "--set", "copies"], "--set takes NAME=VALUE, not 'copies'"),
        (["replay", "--all", "--rate", "0"], "--rate"),
        (["delete"], "say which"),
        (["delete", "--task", "mail"], "would delete 2 dead letters: say --yes, or --dry-run"),
        (["purge"], "would delete 3 dead letters: say --yes, or --dry-run"),
    ],
)
def test_wrong_use_gives_one_line_and_deletes_nothing(run, left, arguments, said):
    command, *rest = arguments

    code, _, errors = run(command, *rest)

    assert code == 2
    assert said in errors
    assert left() == 3


def test_deleting_and_purging(run, tasks, left):
    assert run("delete", tasks.ids[0], "--yes")[:2] == (0, "1 dead letter deleted\n")
    assert run("delete", "--reason", "none-has-it", "--yes")[1] == "0 dead letters deleted\n"
    assert left() == 2

    assert json.loads(run("purge", "--yes", "--json")[1]) == {"found": 2, "deleted": 2, "dry_run": False}
    assert left() == 0
    assert run("purge")[:2] == (0, "0 dead letters deleted\n")


def test_a_retention_deletes_what_it_gives_up(run, tasks, left, monkeypatch):
    assert run("purge", "--retention", "--yes")[1] == "0 dead letters deleted\n", "off unless it is set"
    assert run("purge", "--older-than", "3600", "--keep", "2", "--yes")[1] == "0 dead letters deleted\n"
    assert run("purge", "--keep", "1", "--queue", "mail", "--yes")[1] == "1 dead letter deleted\n"
    monkeypatch.setenv("CHICORY_DLQ_MAX_COUNT", "0")
    tasks.app._components.clear()
    assert run("purge", "--retention", "--yes")[1] == "2 dead letters deleted\n"

    assert left() == 0


@pytest.mark.parametrize(("answer", "remaining"), [("y", 0), ("n", 3)])
def test_on_a_terminal_it_asks_first_and_shows_how_far_it_is(tasks, left, tmp_path, answer, remaining):
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "chicory", "dlq", "purge", tasks.__name__],
        cwd=tmp_path,
        env={**os.environ, "TERM": "xterm"},
        stdin=theirs,
        stderr=theirs,
        stdout=subprocess.PIPE,
    )
    os.close(theirs)
    os.write(ours, f"{answer}\n".encode())
    output, _ = process.communicate(timeout=50)
    shown = b""
    try:
        while part := os.read(ours, 4096):
            shown += part
    except OSError:  # the other side is closed: all has been read
        pass
    os.close(ours)

    assert b"Delete 3 dead letters? They are lost." in shown
    assert (b"deleting" in shown) is (answer == "y")
    assert output.endswith(b"3 dead letters deleted\n") is (answer == "y")
    assert left() == remaining
