"""``chicory plugin new``: what it writes, and what it refuses, each with its reason."""

import ast
import tomllib

import pytest
from click.testing import CliRunner

from chicory.cli.root import cli
from chicory.errors import ConfigurationError
from chicory.scaffold.package import KINDS, package_files, write_package

from .plugin_sources import offering

pytestmark = pytest.mark.usefixtures("site")

each_kind = pytest.mark.parametrize("kind", KINDS)


@each_kind
def test_everything_that_a_package_needs_is_written(kind):
    paths = {path.as_posix() for path in package_files("acme", kind)}

    assert paths >= {
        "README.md",
        "pyproject.toml",
        "tox.ini",
        "src/chicory_acme/__init__.py",
        "src/chicory_acme/plugin.py",
        "src/chicory_acme/py.typed",
        "src/chicory_acme/settings.py",
        "tests/test_app.py",
        "tests/test_suites.py",
    }


@each_kind
def test_nothing_is_left_to_be_filled_in(kind):
    files = package_files("acme", kind)

    assert [path for path, text in files.items() if "${" in text or "NAME" in str(path)] == []
    for path, text in files.items():
        if path.suffix == ".py":
            ast.parse(text)


@each_kind
def test_the_entry_points_lead_to_what_is_written(kind):
    files = {path.as_posix(): text for path, text in package_files("acme", kind).items()}

    project = tomllib.loads(files["pyproject.toml"])["project"]

    assert project["name"] == "chicory-acme"
    assert project["entry-points"]["chicory.plugins"] == {"acme": "chicory_acme.plugin"}
    assert any(requirement.startswith("chicory-core>=") for requirement in project["dependencies"])
    for reference in project["entry-points"].get("chicory.config", {}).values():
        module, _, name = reference.partition(":")
        assert f"class {name}(" in files[f"src/{module.replace('.', '/')}.py"]


@each_kind
def test_no_address_of_a_registry_is_written(kind):
    assert [path for path, text in package_files("acme", kind).items() if "http" in text] == []


def test_the_broker_has_less_than_a_hundred_lines():
    """Blank lines are not counted."""
    text = next(text for path, text in package_files("acme", "broker").items() if path.name == "broker.py")

    assert len([line for line in text.splitlines() if line.strip()]) < 100


# --- names and folders -----------------------------------------------------------------------------

REFUSED = {
    "capital": ("Kafka", "broker", "a letter, then letters and digits, all in lower case, 40 at most"),
    "digit first": ("9x", "broker", "a letter, then letters and digits"),
    "dash": ("my-x", "broker", "a letter, then letters and digits"),
    "a way out": ("../x", "broker", "a letter, then letters and digits"),
    "empty": ("", "middleware", "a letter, then letters and digits"),
    "long": ("x" * 41, "middleware", "40 at most"),
    "with prefix": ("chicory-kafka", "broker", "write `chicory plugin new kafka`"),
    "word of Python": ("class", "broker", "it is a word of Python"),
    "builtin": ("memory", "broker", "chicory itself has it"),
    "core": ("core", "middleware", "chicory itself has it"),
    "ours": ("redis", "broker", "chicory-redis has it"),
    "installed": ("kafka", "broker", "the-kafka, which is installed, has it"),
    "variables of the core": ("worker", "middleware", "its variables would begin as those of chicory do"),
    "variable of the core": ("plugins", "middleware", "(CHICORY_PLUGINS)"),
    "an attribute of the section": ("url", "broker", "`config.broker.url` means something else"),
}


@pytest.mark.parametrize(("name", "kind", "reason"), REFUSED.values(), ids=list(REFUSED))
def test_a_name_that_does_not_fit_is_refused_and_nothing_is_written(name, kind, reason, site, tmp_path):
    site.install("kafka", offering("kafka"))
    empty = tmp_path / "empty"
    empty.mkdir()

    with pytest.raises(ConfigurationError) as refused:
        write_package(name, kind, empty)

    assert reason in str(refused.value)
    assert list(empty.iterdir()) == []


@pytest.mark.parametrize("make", ["mkdir", "touch"], ids=["folder", "file"])
def test_what_exists_is_left_alone(make, tmp_path):
    there = tmp_path / "chicory-acme"
    getattr(there, make)()

    with pytest.raises(ConfigurationError, match=r"chicory-acme' exists already: choose another name, or another folder"):
        write_package("acme", "broker", tmp_path)

    assert there.is_file() or list(there.iterdir()) == []


def test_a_folder_that_cannot_be_written_says_so(tmp_path):
    file = tmp_path / "file"
    file.touch()

    with pytest.raises(ConfigurationError, match="chicory-acme' cannot be written: Not a directory"):
        write_package("acme", "broker", file)


# --- the command -----------------------------------------------------------------------------------


@each_kind
def test_the_command_writes_the_package_and_says_what_to_do_next(kind, tmp_path):
    done = CliRunner().invoke(cli, ["plugin", "new", "acme", "--kind", kind, "--into", str(tmp_path)])

    assert done.exit_code == 0, done.output
    folder = tmp_path / "chicory-acme"
    written = {path.relative_to(folder): path.read_text() for path in folder.rglob("*") if path.is_file()}
    assert written == package_files("acme", kind)
    assert done.output.splitlines()[-1] == f"now run: cd {folder} && pip install -e '.[testing]' && pytest"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["acme"], "Missing option '--kind'"),
        (["acme", "--kind", "actor"], "'actor' is not one of 'broker', 'middleware'"),
        (["acme", "--kind", "broker", "--into", "nowhere"], "Directory 'nowhere' does not exist"),
        ([], "Missing argument 'NAME'"),
    ],
    ids=["no kind", "other kind", "nowhere", "no name"],
)
def test_wrong_use_is_said(words, text):
    done = CliRunner().invoke(cli, ["plugin", "new", *words])

    assert done.exit_code == 2
    assert text in done.output
