"""What plugins offer: small values with sensible defaults."""

import inspect

import pytest

from chicory import ChicoryConfig, offers
from chicory.errors import TaskDefinitionError
from chicory.offers import plugin_options
from chicory.plugin import (
    SYSTEM_CLOCK,
    BackendSpec,
    BrokerSpec,
    ComponentSpec,
    Finding,
    FindingLevel,
    OptionSpec,
    Place,
    SerializerSpec,
)

pytestmark = pytest.mark.usefixtures("no_settings")


@pytest.mark.parametrize(
    ("value", "defaults"),
    [
        (Place(url=None, config=ChicoryConfig(), clock=SYSTEM_CLOCK), {"broker": None, "shared": {}}),
        (BrokerSpec(name="kafka", build=len), {"schemes": ()}),
        (BackendSpec(name="kafka", build=len), {"schemes": ()}),
        (SerializerSpec(content_type="text/x", build=len), {}),
        (ComponentSpec(protocol=int, name="locks", build=len), {}),
        (OptionSpec(name="unique", type=bool), {"default": None}),
        (Finding(level=FindingLevel.OK, what="all is well"), {"fix": ""}),
    ],
    ids=lambda value: type(value).__name__ if hasattr(value, "__struct_fields__") else "",
)
def test_an_offer_says_little_by_default_and_does_not_change(value, defaults):
    assert {name: getattr(value, name) for name in defaults} == defaults
    with pytest.raises(AttributeError):
        setattr(value, value.__struct_fields__[0], None)


def test_two_places_share_nothing_unless_they_are_told_to():
    first, second = (Place(url=None, config=ChicoryConfig(), clock=SYSTEM_CLOCK) for _ in range(2))

    assert first.shared is not second.shared


def test_findings_are_good_or_bad():
    assert [str(level) for level in FindingLevel] == ["ok", "warning", "error"]


@pytest.mark.parametrize("name", [name for name in offers.__all__ if inspect.isclass(getattr(offers, name))])
def test_every_offer_is_explained(name):
    assert inspect.getdoc(getattr(offers, name))


UNIQUE = OptionSpec(name="unique", type=bool, default=False)
LIMIT = OptionSpec(name="limit", type=str)
SPECS = {"unique": UNIQUE, "limit": LIMIT}


def job(): ...


@pytest.mark.parametrize(
    ("given", "options"),
    [
        ({}, {"unique": False, "limit": None}),
        ({"unique": True}, {"unique": True, "limit": None}),
        ({"limit": "3/s", "unique": True}, {"unique": True, "limit": "3/s"}),
    ],
    ids=["defaults", "one given", "all given"],
)
def test_options_of_plugins_are_those_given_over_their_defaults(given, options):
    assert plugin_options(job, given, SPECS, ("queue",)) == options


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"limti": "3/s"}, "unknown option 'limti': did you mean 'limit'?"),
        ({"quue": "mail"}, "unknown option 'quue': did you mean 'queue'?"),
        ({"zzz": 1}, "unknown option 'zzz': no plugin that is loaded reads it"),
        ({"limit": 3}, "option 'limit' takes str, not int"),
    ],
    ids=["near a plugin's", "near the core's", "far", "another type"],
)
def test_an_option_that_nobody_takes_is_refused(given, problem):
    with pytest.raises(TaskDefinitionError) as refused:
        plugin_options(job, given, SPECS, ("queue",))

    assert (refused.value.task, refused.value.problem) == ("job", problem)
