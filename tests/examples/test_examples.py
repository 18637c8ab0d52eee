"""Every example runs as its docstring says, and prints what its docstring says."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .shown import pattern_of, section

EXAMPLES = Path(__file__).parents[2] / "examples"
FILES = sorted(EXAMPLES.glob("*.py"))
FEWEST, MOST_LINES = 6, 59

each_example = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


def docstring_of(file: Path) -> str:
    return ast.get_docstring(ast.parse(file.read_text())) or ""


def run(command: list[str], folder: Path) -> tuple[int, str]:
    """Exit code, and all that a terminal would show, of *command* in *folder*."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("CHICORY_", "PYTHON"))}
    done = subprocess.run(
        command,
        cwd=folder,
        env={**clean, "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONWARNINGS": "default"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=50,
        check=False,
    )
    return done.returncode, done.stdout


def test_there_are_examples():
    assert len(FILES) >= FEWEST


@each_example
def test_an_example_is_short_and_says_how_to_run_it_and_what_appears(file):
    docstring = docstring_of(file)

    assert len(file.read_text().splitlines()) <= MOST_LINES
    assert section(docstring, "Run it") == f"python examples/{file.name}"
    assert section(docstring, "What appears")


@each_example
def test_an_example_prints_what_it_promises_and_leaves_nothing_behind(file, tmp_path):
    _, _, script = section(docstring_of(file), "Run it").partition(" ")

    code, output = run([sys.executable, str(EXAMPLES.parent / script)], tmp_path)

    assert pattern_of(section(docstring_of(file), "What appears")).fullmatch(output.strip()), output
    assert code == 0
    assert list(tmp_path.iterdir()) == []


def test_three_examples_use_the_embedded_default_and_one_starts_worker_processes():
    sources = [file.read_text() for file in FILES]

    assert sum("sqlite:///" in source for source in sources) >= 3
    assert any(re.search(r'"-m", "chicory", "worker"', source) for source in sources)


# --- the checks themselves can fail ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "fits"),
    [
        ("sent 17\n3", True),
        ("sent 17\n4", False),
        ("sent 17", False),
        ("sent 17\n3\nand more", False),
        ("a warning\nsent 17\n3", False),
        ("sent 17\n18\n3", False),
    ],
)
def test_output_that_differs_is_noticed(output, fits):
    assert bool(pattern_of("sent <id>\n3").fullmatch(output)) is fits


def test_an_example_that_changed_its_output_is_noticed(tmp_path):
    source = (EXAMPLES / "typed.py").read_text()
    broken = tmp_path / "typed.py"
    broken.write_text(source.replace("timedelta(days=30)", "timedelta(days=31)"))
    assert broken.read_text() != source

    _, output = run([sys.executable, str(broken)], tmp_path)

    assert not pattern_of(section(docstring_of(broken), "What appears")).fullmatch(output.strip())


@pytest.mark.parametrize("docstring", ["", "Run it:\n\n    python x.py", "Run it::\n\nnothing is indented"])
def test_a_missing_section_is_noticed(docstring):
    assert section(docstring, "Run it") is None
