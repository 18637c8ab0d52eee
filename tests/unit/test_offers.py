"""What plugins offer: small values with sensible defaults."""

import inspect

import pytest

from chicory import ChicoryConfig, offers
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
