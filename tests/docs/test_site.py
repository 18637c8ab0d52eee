"""The documentation as a site: it builds strictly, every page stands in its navigation, every public name on a page of its own."""

import html
import importlib
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml

from chicory import errors

from .pages import DOCS, ROOT, all_pages

CONFIG = ROOT / "mkdocs.yml"
PARTS = ["index.md", "tutorial.md", "write-a-plugin.md", "How-to", "Reference", "Explanation"]
MODULES = ["chicory", "chicory.plugin", "chicory.testing", "chicory.config", "chicory.errors"]

_BLOCK = re.compile(r"^::: (\S+)$", re.MULTILINE)
_TARGET = re.compile(r'<(\w+)\b[^>]*?\b(?:href|src)="([^"]*)"')
_ID = re.compile(r'\b(?:id|name)="([^"]*)"')


class _Loader(yaml.SafeLoader):
    """Reads ``mkdocs.yml`` as data: the functions that it names are not called."""


_Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda _loader, name, _node: name)


def config() -> dict:
    return yaml.load(CONFIG.read_text(encoding="utf-8"), Loader=_Loader)


def files_in(entry) -> list[str]:
    """The pages of a part of the navigation, in order."""
    if isinstance(entry, str):
        return [entry]
    inner = entry.values() if isinstance(entry, dict) else entry
    return [file for value in inner for file in files_in(value)]


def build(folder: Path, *, source: Path = CONFIG) -> subprocess.CompletedProcess:
    """Build the site into *folder*; a warning of Python ends it too."""
    command = [sys.executable, "-W", "error", "-m", "mkdocs", "build", "--strict", "-f", source, "-d", folder]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )


# --- navigation ------------------------------------------------------------------------------------


def test_the_navigation_has_every_page_once():
    pages = {page.path.relative_to(DOCS).as_posix() for page in all_pages() if page.path.is_relative_to(DOCS)}
    counts = Counter(files_in(config()["nav"]))

    assert counts == dict.fromkeys(pages, 1)


def test_the_navigation_goes_from_learning_to_understanding():
    entries = [next(iter(entry.items())) for entry in config()["nav"]]

    assert [value if isinstance(value, str) else name for name, value in entries] == PARTS


def test_navigation_and_index_have_one_order():
    shown = re.findall(r"\]\(([^)]+\.md)\)", (DOCS / "index.md").read_text(encoding="utf-8"))

    assert shown == [file for file in files_in(config()["nav"]) if file != "index.md"]


# --- pages made from docstrings ----------------------------------------------------------------------


def shown_names() -> list[str]:
    return [name for page in sorted((DOCS / "reference" / "python").glob("*.md")) for name in _BLOCK.findall(page.read_text())]


def value_of(name: str) -> object:
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_is_shown_with_its_docstring(module):
    """Once, wherever it can be imported from: a name that two modules export is one thing."""
    shown = {id(value_of(name)) for name in shown_names()}
    missing = [name for name in importlib.import_module(module).__all__ if id(value_of(f"{module}.{name}")) not in shown]

    assert missing == [], "add a line `::: chicory.NAME` for each to a page of docs/reference/python"


def test_nothing_is_shown_twice():
    counts = Counter(id(value_of(name)) for name in shown_names())

    assert [name for name in shown_names() if counts[id(value_of(name))] > 1] == []


@pytest.mark.parametrize("name", shown_names())
def test_what_is_shown_says_something_about_itself(name):
    """Classes and functions by their docstring; a value may have one below it, which is not kept at run time."""
    value = value_of(name)
    if isinstance(value, type) or type(value).__name__ == "function":
        assert (value.__doc__ or "").strip(), name
        assert not (value.__doc__ or "").startswith(f"{value.__name__}("), f"{name}: the docstring is a generated one"


def test_errors_are_shown_by_their_own_page():
    page = (DOCS / "reference" / "python" / "errors.md").read_text(encoding="utf-8")

    assert _BLOCK.findall(page) == [f"chicory.errors.{name}" for name in errors.__all__]


# --- the built site ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built without a warning."""
    folder = tmp_path_factory.mktemp("site")
    done = build(folder)
    assert done.returncode == 0, done.stdout
    assert "WARNING" not in done.stdout, done.stdout
    return folder


def targets_of(page: Path) -> list[tuple[str, str]]:
    text = re.sub(r"<script\b.*?</script>", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return [(tag, html.unescape(target)) for tag, target in _TARGET.findall(text)]


@pytest.mark.timeout(180)
def test_every_link_and_anchor_of_the_site_resolves(site):
    """Those that mkdocs does not check too: into files beside the pages, and from docstrings."""
    ids = {page: set(_ID.findall(page.read_text(encoding="utf-8"))) for page in site.rglob("*.html")}
    dead = []
    for page in ids.keys() - {site / "404.html"}:  # it is served at any depth, and so links from the root
        for _, target in targets_of(page):
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            goal = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            is_there = goal.exists() and (not parts.fragment or goal not in ids or unquote(parts.fragment) in ids[goal])
            dead += [] if is_there else [f"{page.relative_to(site)}: {target}"]

    assert len(ids) >= len(files_in(config()["nav"]))
    assert dead == []


@pytest.mark.timeout(180)
def test_a_reader_fetches_nothing_from_elsewhere(site):
    """Scripts, styles, fonts and pictures come with the site."""
    loaded = {
        (page.name, target)
        for page in site.rglob("*.html")
        for tag, target in targets_of(page)
        if tag in {"link", "script", "img", "iframe"} and urlsplit(target).netloc
    }

    assert loaded == set()


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[there](nowhere.md)", "nowhere.md"),
        ("[there](index.md#no-such-heading)", "no-such-heading"),
        ("::: chicory.NoSuchName", "NoSuchName"),
    ],
    ids=["page", "anchor", "name"],
)
def test_a_page_that_leads_nowhere_stops_the_build(text, said, tmp_path):
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "index.md").write_text(f"# A page\n\n{text}\n")
    small = tmp_path / "mkdocs.yml"
    settings = re.sub(r"^nav:.*", "", CONFIG.read_text(), flags=re.DOTALL | re.MULTILINE)
    site_code = (DOCS / "site.py").as_posix()
    small.write_text(settings.replace("docs/site.py", site_code).replace("chicory_core/src", f"{ROOT}/chicory_core/src"))

    done = build(tmp_path / "site", source=small)

    assert done.returncode != 0
    assert said in done.stdout
