"""Every code block of the documentation runs, and what is shown beside it is what appears."""

import os
import sys

import pytest

from .pages import all_pages, read_page
from .running import Session

PAGES = all_pages()
CODE = {"python", "console"}


@pytest.fixture
def session_in(tmp_path, monkeypatch):
    """Makes the session of a page in a directory of its own; modules that the page wrote are forgotten at the end."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    for name in [name for name in os.environ if name.startswith("CHICORY_")]:
        monkeypatch.delenv(name)
    before = set(sys.modules)
    yield lambda page: Session(page, tmp_path)
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.mark.timeout(700)  # a page starts many processes; each command has its own limit
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_code_of_a_page_runs_and_prints_what_is_shown(page, session_in):
    session_in(page).run()


def test_few_blocks_are_left_out():
    blocks = [(page, block) for page in PAGES for block in page.blocks if block.language in CODE]
    left_out = [f"{page.name}:{block.line}: {block.no_run}" for page, block in blocks if block.no_run]

    assert len(left_out) <= len(blocks) / 10, left_out


@pytest.mark.parametrize("language", ["py", "python3", "sh", "shell", ""])
def test_every_block_says_what_it_is(language):
    """A block of another language would silently not be run."""
    others = [f"{page.name}:{block.line}" for page in PAGES for block in page.blocks if block.language == language]

    assert others == []


# --- the checks themselves can fail ----------------------------------------------------------------

BROKEN = {
    "an error": "```python\n1 / 0\n```",
    "another output": "```python\nprint(2)\n```\n\n```text\n3\n```",
    "more output": "```python\nprint(2)\nprint(3)\n```\n\n```text\n2\n```",
    "a command that fails": "```console\n$ chicory workers nowhere:app\n```",
    "another exit code": "```console\n$ chicory workers nowhere:app  # exits with 1\n```",
    "another output of a command": "```console\n$ echo 2\n3\n```",
    "a worker that cannot start": "```console\n$ chicory worker nowhere:app\n```",
    "a Ctrl-C in an empty terminal": "```console\n^C\n```",
    "a hidden error": "<!-- run\n1 / 0\n-->",
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN.keys())
def test_a_page_that_does_not_hold_is_noticed(text, tmp_path, session_in):
    file = tmp_path / "page.md"
    file.write_text(text + "\n")

    with pytest.raises((AssertionError, ZeroDivisionError)):
        session_in(read_page(file)).run()


def test_a_fence_that_never_ends_is_noticed(tmp_path):
    file = tmp_path / "page.md"
    file.write_text("```python\n1\n")

    with pytest.raises(ValueError, match="nothing ends"):
        read_page(file)
