"""The command line as a user types it: what it prints, and its exit codes."""

import asyncio
import json
import sys

import pytest

from .conftest import ended, until

pytestmark = pytest.mark.e2e


async def test_send_and_result_call_a_task_and_show_what_it_gave(project, start_workers):
    async with project.app() as app:
        await start_workers(app, 1)

        sent = await asyncio.to_thread(project.run, "send", "tasks:app", "tasks.add", "1", "--kwarg", "b=2", "--wait")
        assert (sent.returncode, sent.stdout.strip()) == (0, "3")

        task_id = (await asyncio.to_thread(project.run, "send", "tasks.add", "4", "5")).stdout.strip()
        shown = await asyncio.to_thread(project.run, "result", task_id, "--wait", "--timeout", "10")
        assert (shown.returncode, shown.stdout.strip()) == (0, "9")

        known = json.loads((await asyncio.to_thread(project.run, "result", "tasks:app", task_id)).stdout)
        assert (known["state"], known["value"], known["task"]) == ("SUCCESS", 9, "tasks.add")


async def test_the_module_alone_may_stand_for_its_app(project, start_workers):
    async with project.app() as app:
        await start_workers(app, 1)

        sent = await asyncio.to_thread(project.run, "send", "tasks", "tasks.add", "1", "2", "--wait", "--timeout", "10")

        assert (sent.returncode, sent.stdout.strip()) == (0, "3"), sent.stderr


async def test_a_failed_task_gives_its_error_and_exit_code_one(project, start_workers):
    async with project.app() as app:
        await start_workers(app, 1)

        done = await asyncio.to_thread(project.run, "send", "tasks.add", "one", "2", "--wait", "--timeout", "10")

    assert done.returncode == 1
    assert "ValidationError" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


async def test_workers_are_listed_while_they_live(project, start_workers):
    arguments = [
        "--queue",
        "mail",
        "--queue",
        "default",
        "--concurrency",
        "3",
        "--heartbeat-interval",
        "0.3",
        "--heartbeat-ttl",
        "1",
    ]
    async with project.app() as app:
        (worker,) = (await start_workers(app, 1, *arguments)).values()
        await app.send_task("tasks.note", [30.0], queue="mail")
        await until(lambda: project.ledger())

        table = await asyncio.to_thread(project.run, "workers", "tasks:app")
        (listed,) = json.loads((await asyncio.to_thread(project.run, "workers", "tasks:app", "--json")).stdout)

        assert str(worker.pid) in table.stdout
        assert "mail,default" in table.stdout
        assert (listed["pid"], listed["concurrency"], listed["queues"]) == (worker.pid, 3, ["mail", "default"])
        worker.kill()
        await ended(worker)
    gone = await until(lambda: _cleanup(project))
    assert gone.startswith("1 worker and ")
    assert (await asyncio.to_thread(project.run, "workers", "tasks:app")).stdout.strip() == "no worker lives"


async def _cleanup(project):
    done = await asyncio.to_thread(
        project.run, "cleanup", "tasks:app", "--stale-seconds", "0", CHICORY_WORKER_QUEUE="mail,default"
    )
    return done.stdout if not done.stdout.startswith("0 workers") else None


async def test_queues_show_what_waits(project):
    async with project.app() as app:
        await app.send_task("tasks.add", [1, 2])
        await app.send_task("tasks.add", [1, 2], countdown=3600)
        await app.send_task("tasks.add", [1, 2], queue="mail")

    shown = await asyncio.to_thread(project.run, "queues", "tasks:app")
    rows = json.loads((await asyncio.to_thread(project.run, "queues", "tasks:app", "--json")).stdout)

    assert [line.split()[0] for line in shown.stdout.splitlines()] == ["QUEUE", "default", "mail"]
    counts = {row["queue"]: (row["ready"], row["delayed"], row["running"], row["dead"]) for row in rows}
    assert counts == {"default": (1, 1, 0, 0), "mail": (1, 0, 0, 0)}
    assert rows[0]["oldest_seconds"] > 0


def test_plugins_are_listed_with_what_they_offer(project):
    rows = {row["name"]: row for row in json.loads(project.run("plugins", "--json").stdout)}

    assert rows["sqlite"]["distribution"] == "chicory-sqlite"
    assert rows["sqlite"]["state"] == "active"
    assert "chicory_register_brokers" in rows["sqlite"]["offers"]
    blocked = {row["name"]: row for row in json.loads(project.run("plugins", "--json", "--plugin", "no:sqlite").stdout)}
    assert (blocked["sqlite"]["state"], blocked["sqlite"]["reason"]) == ("blocked", "by no:sqlite")
    assert "sqlite" in project.run("plugins").stdout


def test_the_pipeline_shows_the_composed_order(project):
    layers = json.loads(project.run("plugins", "--pipeline", "--json").stdout)

    assert [layer["layer"] for layer in layers] == ["retry", "unknown_task", "admit", "decode", "call"]
    assert [layer["stage"] for layer in layers] == sorted(layer["stage"] for layer in layers)


async def test_a_broker_given_on_the_command_line_beats_the_apps_own(project, start_workers):
    (project.folder / "tasks.py").write_text(
        (project.folder / "tasks.py").read_text().replace("Chicory()", "Chicory(broker='memory')")
    )
    async with project.app() as app:
        await start_workers(app, 1, "--broker", f"sqlite:///{project.database}")
        assert await (await app.send_task("tasks.add", [1, 2])).get(timeout=10) == 3


async def test_a_plugin_asked_for_brings_its_broker_and_says_so(project, start_workers):
    (project.folder / "tasks.py").write_text(
        (project.folder / "tasks.py").read_text().replace("Chicory()", "Chicory(broker='memory')")
    )
    async with project.app() as app:
        (worker,) = (await start_workers(app, 1, "--plugin", "sqlite")).values()
        assert await (await app.send_task("tasks.add", [1, 2])).get(timeout=10) == 3
        assert '"by_plugin": "sqlite"' in worker.log.read_text()
        assert "broker_overridden" in worker.log.read_text()


async def test_the_environment_may_name_the_app_and_its_settings(project):
    async with project.app() as app:
        project.start("worker", CHICORY_APP="tasks:app", CHICORY_WORKER_CONCURRENCY="7", CHICORY_WORKER_QUEUE="b,a")
        (worker,) = await until(lambda: app.backend.get_active_workers())
        assert (worker.concurrency, worker.queue) == (7, "b,a")


async def test_an_option_given_beats_the_environment_and_one_not_given_does_not(project, start_workers):
    async with project.app() as app:
        environment = {"CHICORY_WORKER_CONCURRENCY": "7", "CHICORY_WORKER_HEARTBEAT_TTL": "77"}
        await start_workers(app, 1, "--concurrency", "3", **environment)

        (worker,) = await app.backend.get_active_workers()

        assert worker.concurrency == 3
        stats, until_ = await app._clients[asyncio.get_running_loop()].connection.backend.engine.submit(
            lambda t: t.records._connection.execute("SELECT stats, until FROM worker").fetchone(), is_write=False
        )
        beat = json.loads(stats)["last_heartbeat"]
        assert beat and until_ / 1e6 > worker.last_heartbeat.timestamp() + 70


WRONG = {
    "unknown command": (["wrker"], 2, "no such command 'wrker': did you mean 'worker'?"),
    "no app": (["worker"], 2, "Missing argument 'APP'"),
    "no module": (["worker", "nowhere:app"], 2, "no module 'nowhere' here"),
    "no attribute": (["workers", "tasks:ap"], 2, "module 'tasks' has no 'ap': did you mean 'app'?"),
    "not an app": (["queues", "tasks:add"], 2, "'tasks:add' is a AsyncTask, not a Chicory app"),
    "unknown plugin": (["worker", "tasks:app", "--plugin", "nats"], 2, "run `pip install chicory-nats`"),
    "unknown scheme": (["worker", "tasks:app", "--broker", "redis://localhost"], 2, "run `pip install chicory-redis`"),
    "unknown broker": (["worker", "tasks:app", "--broker", "sqlit"], 2, "did you mean 'sqlite'?"),
    "blocked plugin": (["worker", "tasks:app", "--plugin", "no:sqlite"], 2, "take back no:sqlite"),
    "dead letters": (["worker", "tasks:app", "--dlq"], 2, "pip install chicory-dlq"),
    "bad number": (["worker", "tasks:app", "--concurrency", "0"], 2, "0 is not in the range x>=1"),
    "ttl below interval": (["worker", "tasks:app", "--heartbeat-ttl", "1"], 2, "heartbeat_ttl must exceed heartbeat_interval"),
    "bad argument": (["send", "tasks:app", "tasks.add", "1"], 1, "arguments of task 'tasks.add': b: missing"),
    "bad kwarg": (["send", "tasks.add", "--kwarg", "b"], 2, "--kwarg takes NAME=VALUE, not 'b'"),
    "unknown id": (["result", "nobody-knows"], 1, "no result for task id 'nobody-knows'"),
}


@pytest.mark.parametrize(("arguments", "code", "text"), WRONG.values(), ids=WRONG.keys())
def test_wrong_use_gives_one_line_that_says_what_to_do(project, arguments, code, text):
    done = project.run(*arguments)

    lines = [line for line in done.stderr.splitlines() if line.startswith("chicory: ")]
    assert done.returncode == code
    assert len(lines) == 1
    assert text in lines[0]
    assert "Traceback" not in done.stderr


def test_traceback_shows_where_an_error_comes_from(project):
    done = project.run("worker", "nowhere:app", "--traceback")

    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert "ModuleNotFoundError" in done.stderr


def test_a_misspelt_variable_is_told(project):
    done = project.run("queues", "tasks:app", CHICORY_WORKER_CONCURENCY="4")

    assert done.returncode == 0
    assert "CHICORY_WORKER_CONCURENCY is not a setting of chicory: did you mean CHICORY_WORKER_CONCURRENCY?" in done.stderr


def test_a_value_that_does_not_fit_names_its_variable(project):
    done = project.run("queues", "tasks:app", CHICORY_WORKER_CONCURRENCY="many")

    assert done.returncode == 2
    assert "CHICORY_WORKER_CONCURRENCY" in done.stderr
    assert "many" not in done.stderr


@pytest.mark.parametrize("command", ["worker", "workers", "cleanup", "plugins", "queues", "send", "result", "demo"])
def test_every_command_has_help(project, command):
    done = project.run(command, "--help")

    assert done.returncode == 0
    assert "Usage: chicory " + command in done.stdout


def test_help_imports_nothing_heavy(project):
    import subprocess

    code = (
        "import sys; from chicory.cli.root import cli; cli.get_command(None, 'worker');"
        "print([n for n in ('sqlite3', 'chicory.app', 'pydantic', 'structlog') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=project.folder)

    assert done.stdout.strip() == "[]"


async def test_a_script_and_its_worker_agree_on_the_names_of_tasks(project, start_workers):
    import subprocess

    (project.folder / "script.py").write_text(
        "from chicory import Chicory\n"
        "app = Chicory()\n"
        "@app.task\n"
        "def double(x: int) -> int:\n"
        "    return 2 * x\n"
        "if __name__ == '__main__':\n"
        "    print(double.name, double.delay_sync(21).get_sync(timeout=15))\n"
    )
    async with project.app() as app:
        process = project.start("worker", "script:app")
        await until(lambda: app.backend.get_active_workers())

        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "script.py"],
            cwd=project.folder,
            env=project.environment(),
            capture_output=True,
            text=True,
            timeout=30,
        )

        assert done.stdout.split() == ["script.double", "42"], done.stderr + process.log.read_text()


def test_the_demo_counts_files_and_loses_nothing_when_a_worker_is_killed(project):
    sources = project.folder / "sources"
    sources.mkdir()
    for number in range(60):
        (sources / f"m{number}.py").write_text("import os\nfrom json import loads\n" + "x = [1, 2, 3]\n" * 2000)
    (sources / "broken.py").write_text("def :\n")

    done = project.run("demo", "sources", timeout=60)

    rows = dict(line.strip().split("  ", 1) for line in done.stdout.splitlines() if "  " in line.strip())
    assert done.returncode == 0, done.stderr
    assert rows["files"] == "60 counted by 2 worker processes"
    assert rows["lines"] == f"{60 * 2003:,}"
    assert rows["most imported"].startswith("os 60, json 60")
    assert rows["failures"].startswith("1 (SyntaxError 1)")
    assert "with SIGKILL, half-way" in rows["killed"]
    assert rows["lost"] == "0 of 61"


def test_the_demo_needs_files(project):
    (project.folder / "empty").mkdir()

    done = project.run("demo", "empty")

    assert done.returncode == 2
    assert "no Python file below" in done.stderr
