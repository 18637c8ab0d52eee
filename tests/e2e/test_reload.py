"""``chicory worker --reload``: processes that make room for others when a source file changes."""

import asyncio
import os
import signal
import sys

import pytest

from chicory.cli.root import main

from .conftest import ended, until

pytestmark = pytest.mark.e2e

ADD = "    return a + b\n"


@pytest.fixture
def reloading(project):
    """Starts a worker that watches the project, and returns once it does."""

    async def start(*arguments):
        process = project.start("worker", "tasks:app", "--reload", *arguments)
        await until(lambda: "watching" in process.log.read_text())
        return process

    return start


def edit(project, before, after):
    """One write of the whole file, as an editor would do it."""
    file = project.folder / "tasks.py"
    source = file.read_text()
    assert before in source
    file.write_text(source.replace(before, after))


async def answer(app, within=20):
    return await (await app.send_task("tasks.add", [1, 2])).get(timeout=within)


async def test_a_change_starts_the_workers_anew_with_the_new_code(project, reloading):
    async with project.app() as app:
        supervisor = await reloading("--workers", "2")
        assert await answer(app) == 3

        edit(project, ADD, "    return a + b + 1000\n")

        await until(lambda: "files_changed" in supervisor.log.read_text())  # a late starter may know the new code before
        await until(lambda: _is(app, 1003), within=20)
        assert "worker_died" not in supervisor.log.read_text()
        supervisor.send_signal(signal.SIGTERM)
        assert await ended(supervisor) == 0


async def _is(app, expected):
    return await answer(app) == expected


async def test_an_edit_of_one_size_and_second_with_the_code_before_it_is_seen(project, reloading, monkeypatch):
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    before = (project.folder / "tasks.py").stat()
    async with project.app() as app:
        await reloading()
        assert await answer(app) == 3

        edit(project, ADD, ADD.replace("+", "*"))
        os.utime(project.folder / "tasks.py", ns=(before.st_atime_ns, before.st_mtime_ns))

        await until(lambda: _is(app, 2), within=20)


async def test_a_mistake_is_said_and_waits_for_its_correction(project, reloading):
    async with project.app() as app:
        supervisor = await reloading()
        assert await answer(app) == 3

        edit(project, ADD, "    return a +\n")
        await until(lambda: "worker_cannot_start" in supervisor.log.read_text(), within=20)
        assert supervisor.poll() is None

        edit(project, "    return a +\n", "    return a * b\n")
        assert await answer(app) == 2
        supervisor.send_signal(signal.SIGTERM)
        assert await ended(supervisor) == 0


async def test_what_runs_is_finished_and_what_runs_at_the_second_change_runs_again(project, reloading):
    async with project.app() as app:
        supervisor = await reloading()
        quick = await app.send_task("tasks.note", [1.5])
        await until(lambda: project.ledger())
        edit(project, ADD, "    return a + b + 1\n")
        await quick.get(timeout=20)
        assert len(project.ledger()) == 1

        slow = await app.send_task("tasks.note", [3.0])
        await until(lambda: len(project.ledger()) == 2)
        edit(project, ADD.replace("b", "b + 1"), "    return a + b + 2\n")
        await until(lambda: supervisor.log.read_text().count("worker_draining") == 2)
        edit(project, ADD.replace("b", "b + 2"), "    return a + b + 3\n")

        await slow.get(timeout=30)
        assert (await slow.info()).retries == 0
        assert len(project.ledger()) == 3


async def test_other_folders_may_be_watched(project, reloading):
    (project.folder / "shared").mkdir()
    (project.folder / "shared" / "prices.py").write_text("factor = 1\n")
    async with project.app() as app:
        supervisor = await reloading("--reload-dir", "shared")
        assert await answer(app) == 3

        edit(project, ADD, "    return a + b + 1000\n")
        await asyncio.sleep(1)
        assert "files_changed" not in supervisor.log.read_text(), "the folder of tasks.py is not watched"

        (project.folder / "shared" / "prices.py").write_text("factor = 2\n")
        await until(lambda: _is(app, 1003), within=20)


def test_without_watchfiles_the_command_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "watchfiles", None)

    with pytest.raises(SystemExit) as caught:
        main(["worker", "tasks:app", "--reload"])

    assert caught.value.code == 2
    assert "pip install chicory-core[reload]" in capsys.readouterr().err


def test_a_folder_without_reload_is_wrong_use(tmp_path):
    with pytest.raises(SystemExit) as caught:
        main(["worker", "tasks:app", "--reload-dir", str(tmp_path)])

    assert caught.value.code == 2
