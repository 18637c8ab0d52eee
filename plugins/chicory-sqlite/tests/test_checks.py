"""What ``chicory doctor`` finds out about the file."""

from types import SimpleNamespace

import pytest

from chicory import Chicory
from chicory.doctor import examine
from chicory.offers import FindingLevel
from chicory_sqlite import checks


@pytest.fixture
def said():
    """What the plugin says of an app: the good, and the bad."""

    async def look(app):
        findings = [d for d in await examine(app) if d.check == "sqlite"]
        good = [d.what for d in findings if d.level is FindingLevel.OK]
        return good, [d.what for d in findings if d.level is FindingLevel.WARNING]

    return look


async def test_a_file_that_is_well(said, tmp_path):
    path = tmp_path / "chicory.db"

    assert await said(Chicory(broker=f"sqlite:///{path}")) == ([f"{path}, durability full"], [])


async def test_weaker_durability(said, tmp_path):
    _, (warning,) = await said(Chicory(broker=f"sqlite:///{tmp_path}/chicory.db?durability=normal"))

    assert "a power cut may undo the last commits" in warning


async def test_a_path_that_depends_on_where_a_process_was_started(said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    _, (warning,) = await said(Chicory())

    assert "the path is relative" in warning
    monkeypatch.setenv("CHICORY_BROKER_SQLITE_PATH", str(tmp_path / ".chicory" / "chicory.db"))
    assert (await said(Chicory()))[1] == []


async def test_an_address_that_depends_on_where_a_process_was_started(said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    _, (warning,) = await said(Chicory(broker="sqlite:///chicory.db"))

    assert "the path is relative" in warning


async def test_a_file_that_others_may_read(said, tmp_path):
    path = tmp_path / "chicory.db"
    path.touch(0o644)
    path.chmod(0o644)

    _, (warning,) = await said(Chicory(broker=f"sqlite:///{path}"))

    assert "its mode is 644" in warning


async def test_a_disk_that_is_nearly_full(said, tmp_path, monkeypatch):
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda path: SimpleNamespace(free=5 * 1024**2))

    _, (warning,) = await said(Chicory(broker=f"sqlite:///{tmp_path}/chicory.db"))

    assert warning.startswith("5 MiB are free on its disk")


async def test_two_files_are_both_looked_at(said, tmp_path):
    good, _ = await said(Chicory(broker=f"sqlite:///{tmp_path}/a.db", backend=f"sqlite:///{tmp_path}/b.db"))

    assert good == [f"{tmp_path}/a.db, durability full", f"{tmp_path}/b.db, durability full"]


async def test_another_broker_is_no_business_of_this_plugin(said):
    assert await said(Chicory(broker="memory")) == ([], [])


async def test_without_a_backend_only_the_broker_is_looked_at(said, tmp_path):
    good, _ = await said(Chicory(broker=f"sqlite:///{tmp_path}/a.db", backend=None))

    assert good == [f"{tmp_path}/a.db, durability full"]
