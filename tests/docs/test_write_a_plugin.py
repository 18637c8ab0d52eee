"""The broker of the page about plugins is the one that is written, short, and keeps the whole contract."""

import importlib.util

import pytest

from chicory.scaffold.package import package_files
from chicory.testing import BrokerSuite

from .pages import DOCS, read_page

PAGE = read_page(DOCS / "write-a-plugin.md")
PACKAGE = "chicory-shelf/"
SHOWN = {block.file.removeprefix(PACKAGE): block.text for block in PAGE.blocks if (block.file or "").startswith(PACKAGE)}
BROKER = "src/chicory_shelf/broker.py"


@pytest.mark.parametrize("path", SHOWN)
def test_what_is_shown_is_what_is_written(path):
    written = {path.as_posix(): text for path, text in package_files("shelf", "broker").items()}

    assert SHOWN[path] == written[path]


def test_the_broker_has_less_than_a_hundred_lines():
    """Blank lines are not counted."""
    assert len([line for line in SHOWN[BROKER].splitlines() if line.strip()]) < 100


class TestShownBroker(BrokerSuite):
    @pytest.fixture
    def make_broker(self, tmp_path, clock):
        file = tmp_path / "broker.py"
        file.write_text(SHOWN[BROKER])
        spec = importlib.util.spec_from_file_location("the_shown_broker", file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return lambda: module.ShelfBroker(str(tmp_path / "shelf.db"), clock)
