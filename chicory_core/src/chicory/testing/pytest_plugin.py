"""The test kit as a pytest plugin. It is named, never found by itself.

In the ``conftest.py`` at the top, ``pytest_plugins = ["chicory.testing.pytest_plugin"]``, or on the command line
``-p chicory.testing.pytest_plugin``. Say once which app it is about: ``chicory_app = tasks:app`` in pytest's configuration,
or a fixture ``chicory_app`` of your own that returns it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from chicory.app import Chicory
from chicory.errors import nearest
from chicory.testing.crash import CrashCheck
from chicory.testing.run import AppRun, in_memory

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["chicory_app", "chicory_crash", "chicory_run"]

_OPTION = "chicory_crash"
_TITLE = "chicory crash"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("chicory")
    group.addoption(
        "--chicory-crash",
        dest=_OPTION,
        action="store_true",
        help="in tests that use chicory_crash, stop each task at each of its awaits in turn and deliver it again",
    )
    parser.addini("chicory_app", "the app under test, as module:attribute", default="")


@pytest.fixture
def chicory_app(pytestconfig: pytest.Config) -> Chicory:
    """The app under test; a fixture of this name in your own conftest takes its place."""
    reference = str(pytestconfig.getini("chicory_app"))
    module, _, attribute = reference.partition(":")
    if not module:
        _refuse(
            "chicory does not know which app is tested: write `chicory_app = tasks:app` into pytest's configuration, "
            "or a fixture chicory_app that returns it"
        )
    value: Any = _import(module, reference)
    for name in (attribute or "app").split("."):
        if not hasattr(value, name):
            near = nearest(name, tuple(vars(value)))
            _refuse(f"chicory_app = {reference}: there is no {name!r}" + (f"; did you mean {near!r}?" if near else ""))
        value = getattr(value, name)
    if not isinstance(value, Chicory):
        _refuse(f"chicory_app = {reference}: that is a {type(value).__name__}, not a Chicory app")
    return value


def _import(module: str, reference: str) -> Any:
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name not in (module, module.partition(".")[0]):
            raise  # it is there, and what it imports is not
        _refuse(f"chicory_app = {reference}: no module {error.name!r}; add its folder to pytest's `pythonpath`")


def _refuse(text: str) -> NoReturn:
    pytest.fail(text, pytrace=False)


@pytest.fixture
def chicory_run(chicory_app: Chicory) -> Iterator[AppRun]:
    """The app, in memory under a clock that stands still, for one test."""
    with in_memory(chicory_app) as run:
        yield run


@pytest.fixture
def chicory_crash(chicory_app: Chicory, request: pytest.FixtureRequest) -> Iterator[CrashCheck]:
    """What checks that tasks may be delivered twice; with crashes if ``--chicory-crash`` is given."""
    crashes = bool(request.config.getoption(_OPTION))
    with CrashCheck(chicory_app, crashes=crashes) as check:
        yield check


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Reports travel to the summary as properties of the test, which come from other processes too (xdist)."""
    check = getattr(item, "funcargs", {}).get("chicory_crash")
    if call.when == "call" and isinstance(check, CrashCheck):
        item.user_properties += [(_OPTION, str(report)) for report in check.reports if report.points]
    return (yield)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    lines = [
        (report.nodeid, text)
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", None) == "call"
        for name, text in report.user_properties
        if name == _OPTION
    ]
    if not lines:
        return
    terminalreporter.section(_TITLE)
    for nodeid, text in sorted(lines):
        terminalreporter.write_line(nodeid)
        terminalreporter.write_line("\n".join(f"  {line}" for line in text.splitlines()))
