"""How the pages are written: one sentence per line, an opening that says what for, links that lead somewhere."""

import re
from pathlib import Path

import pytest

from .pages import DOCS, ROOT, all_pages, read_page

PAGES = all_pages()
OURS = [page for page in PAGES if page.path.is_relative_to(DOCS)]
ORDER = ["tutorial.md", "write-a-plugin.md", "how-to", "reference", "explanation", "benchmarks.md"]

_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"`[^`]*`")
_NOT_PROSE = re.compile(r"^(#|\||<|::: |\s*$)")
_ITEM = re.compile(r"^\s*([-*]|\d+\.)\s+")
_INNER_END = re.compile(r"(?<![A-Z])[.!?][*)]*\s+(?=[A-Z*\[])")
_PACKAGE = re.compile(r"\b[\w-]+ \d[\w.]*")
"""A name with its version: `rich 15.0` praises nothing."""
_PRAISE = re.compile(
    r"\b(powerful|elegant|seamless(ly)?|blazing(ly)?|robust|modern|effortless(ly)?|beautiful(ly)?|simply|easily|awesome|"
    r"lightweight|rich|intuitive|world-class|state-of-the-art|best-in-class|delightful)\b",
    re.IGNORECASE,
)
_REGISTRIES = re.compile(r"pypi\.org|pythonhosted|npmjs|docker\.io|quay\.io|ghcr\.io|crates\.io")
_MACHINE = re.compile(r"/(work|home|root|Users)/")

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
each_of_ours = pytest.mark.parametrize("page", OURS, ids=lambda page: page.name)


def sentences_amiss(lines: list[tuple[int, str]]) -> list[str]:
    """Lines that hold more than one sentence, or only a part of one."""
    amiss = []
    for number, line in lines:
        if _NOT_PROSE.match(line):
            continue
        is_item = bool(_ITEM.match(line))
        plain = _LINK.sub(lambda link: link[0].partition("](")[0].lstrip("["), _ITEM.sub("", line))
        plain = _CODE.sub("Xx", plain).strip()
        if _INNER_END.search(plain):
            amiss.append(f"{number}: more than one sentence: {line}")
        if not is_item and not plain.endswith((".", ":", "?", "!", ".**")):
            amiss.append(f"{number}: a part of a sentence: {line}")
    return amiss


def dead_links(path: Path, text: str) -> list[str]:
    """Links of the page at *path* that lead nowhere inside of this repository."""
    dead = []
    for target in _LINK.findall(re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        goal = (path.parent / file).resolve() if file else path
        if not goal.exists() or (anchor and anchor not in read_page(goal).anchors):
            dead.append(target)
    return dead


@each_page
def test_a_line_holds_one_sentence(page):
    assert sentences_amiss(page.prose) == []


@each_page
def test_every_link_leads_somewhere(page):
    assert dead_links(page.path, page.text) == []


@each_page
def test_nothing_is_praised(page):
    said = [(number, _PACKAGE.sub("", line)) for number, line in page.prose]
    assert [f"{number}: {line}" for number, line in said if _PRAISE.search(line)] == []


@each_page
def test_no_page_names_a_registry_or_a_path_of_somebodys_machine(page):
    assert _REGISTRIES.findall(page.text) == []
    assert _MACHINE.findall(page.text) == []


@each_of_ours
def test_a_page_opens_with_what_its_reader_can_do_after_it(page):
    lines = page.text.splitlines()

    assert lines[0].startswith("# ")
    assert lines[1] == ""
    assert lines[2].startswith("After this page you ")
    assert sum(line.startswith("# ") for _, line in page.prose) == 1


def test_the_index_has_every_page_in_order():
    targets = [target for target in _LINK.findall((DOCS / "index.md").read_text()) if target.endswith(".md")]
    pages = {page.path.relative_to(DOCS).as_posix() for page in OURS} - {"index.md"}

    assert set(targets) == pages
    assert len(targets) == len(pages)
    parts = [target.partition("/")[0] for target in targets]
    assert sorted(parts, key=ORDER.index) == parts


# --- the checks themselves can fail ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "is_amiss"),
    [
        ("One sentence.", False),
        ("One sentence, with `code. Like this` in it.", False),
        ("It takes 0.5 s, e.g. here.", False),
        ("Two. Sentences.", True),
        ("Two of them. `code` begins one.", True),
        ("Two with `code`. And more.", True),
        ("A part of", True),
        ("- an item without full stop", False),
        ("- An item. With two sentences.", True),
        ("| a table | may. Do so |", False),
    ],
)
def test_sentences_are_told_apart(line, is_amiss):
    assert bool(sentences_amiss([(1, line)])) is is_amiss


@pytest.mark.parametrize("target", ["nowhere.md", "index.md#no-such-heading", "#no-such-heading"])
def test_a_dead_link_is_noticed(target):
    assert dead_links(DOCS / "index.md", f"[there]({target})") == [target]


def test_a_good_link_is_none():
    assert dead_links(DOCS / "index.md", "[there](tutorial.md#install) and [README](../README.md)") == []
    assert (ROOT / "README.md").exists()
