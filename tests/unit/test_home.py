"""Where a child process imports a task from, and which tasks it could not import."""

import functools
import sys
from types import ModuleType
from types import SimpleNamespace as Namespace

import pytest

from chicory.errors import TaskDefinitionError
from chicory.home import Home, home_of


def crunch(): ...


@functools.wraps(crunch)
def wrapped(): ...


def maker():
    def inner(): ...

    return inner


@pytest.fixture
def run_as(monkeypatch):
    """Makes this process look as if it ran another program."""

    def run(**main):
        module = ModuleType("__main__")
        module.__dict__.update(main)
        monkeypatch.setitem(sys.modules, "__main__", module)

    return run


@pytest.mark.parametrize("function", [crunch, wrapped], ids=["plain", "wrapped"])
def test_a_function_is_at_home_in_its_module(function):
    assert home_of("crunch", function, {}) == Home(task="crunch", module=__name__, file=None)


def test_a_function_of_a_library_is_at_home_where_it_is_registered():
    assert home_of("dump", functools.wraps, {"__name__": "shop.tasks"}) == Home(task="dump", module="shop.tasks")


@pytest.mark.parametrize("function", [maker(), lambda: None], ids=["inner", "lambda"])
def test_what_cannot_be_imported_is_refused(function):
    with pytest.raises(TaskDefinitionError, match="cannot be imported: define it at the top level of a module"):
        home_of("crunch", function, {})


@pytest.mark.parametrize(
    ("main", "home"),
    [
        ({"__spec__": Namespace(name="shop.tasks"), "__file__": "/far/shop/tasks.py"}, Home(task="t", module="shop.tasks")),
        ({"__spec__": None, "__file__": "/far/tasks.py"}, Home(task="t", module="tasks", file="/far/tasks.py")),
    ],
    ids=["python -m shop.tasks", "python tasks.py"],
)
def test_a_program_is_at_home_under_the_name_it_would_be_imported_by(main, home, run_as):
    run_as(**main)

    assert home_of("t", crunch, {"__name__": "__main__"}) == home


@pytest.mark.parametrize(
    "main",
    [{"__spec__": None}, {"__spec__": Namespace(name="__main__"), "__file__": "/far/shop/__main__.py"}],
    ids=["a prompt", "python folder"],
)
def test_a_program_that_nobody_can_import_is_refused(main, run_as):
    run_as(**main)

    with pytest.raises(TaskDefinitionError, match="define it in a module with a file of its own"):
        home_of("t", crunch, {"__name__": "__main__"})


def test_registration_refuses_it_too(app):
    with pytest.raises(TaskDefinitionError, match=r"<locals>.*cannot be imported"):
        app.task(execution="process")(maker())

    assert not app.tasks


def test_only_tasks_in_processes_have_a_home(app):
    task = app.task(name="inner")(maker())

    assert task.home is None
    assert app.task(execution="process")(crunch).home == Home(task=f"{__name__}.crunch", module=__name__)
