"""What is public is what is exported, and the documents of the house agree with the code."""

import importlib
import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest

import chicory
from chicory import errors, plugin, testing

ROOT = Path(__file__).parents[2]
SOURCE = Path(chicory.__file__).parent
MODULES = sorted(
    "chicory." + ".".join(f.relative_to(SOURCE).with_suffix("").parts)
    for f in SOURCE.rglob("*.py")
    if f.name not in ("__init__.py", "__main__.py") and not {"cli", "demo"} & set(f.parts)
)


@pytest.mark.parametrize("module", [chicory, plugin, testing], ids=lambda m: m.__name__)
def test_everything_exported_is_there_once_and_in_order(module):
    assert len(set(module.__all__)) == len(module.__all__)
    for name in module.__all__:
        assert getattr(module, name) is not None


@pytest.mark.parametrize("name", MODULES)
def test_exports_of_modules_exist(name):
    module = importlib.import_module(name)

    missing = [export for export in getattr(module, "__all__", ()) if not hasattr(module, export)]

    assert missing == []


def test_names_of_the_public_surface():
    """Every import that api.md promises; the rest of the error tree is in chicory.errors."""
    promised = [
        "Chicory",
        "Worker",
        "Task",
        "TaskContext",
        "AsyncResult",
        "TaskMessage",
        "TaskResult",
        "TaskState",
        "TaskOptions",
        "WorkerStats",
        "BrokerType",
        "BackendType",
        "DeliveryMode",
        "ValidationMode",
        "RetryPolicy",
        "RetryBackoff",
        "ChicoryConfig",
        "WorkerConfig",
        "ChicoryError",
        "TaskNotFoundError",
        "TaskFailedError",
        "ValidationError",
        "RetryError",
        "MaxRetriesExceededError",
        "BackendNotConfiguredError",
        "BrokerConnectionError",
    ]

    assert set(promised) <= set(chicory.__all__)
    from chicory.config import BackendConfig, BrokerConfig, WorkerConfig
    from chicory.plugin import API_VERSION, hookimpl

    assert None not in (BackendConfig, BrokerConfig, WorkerConfig, hookimpl)
    assert API_VERSION == (1, 0)


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="no attribute 'Celery'"):
        chicory.Celery


def test_the_error_tree_is_drawn_as_it_is():
    drawn = re.findall(r"[├└]── (\w+)", errors.__doc__)
    classes = {name for name in errors.__all__ if isinstance(getattr(errors, name), type)} - {"ChicoryError"}

    assert sorted(drawn) == sorted(classes)
    indent = {}
    for line in errors.__doc__.splitlines():
        if match := re.match(r"([\s│]*)[├└]── (\w+)", line):
            indent[len(match[1])] = match[2]
            parents = [name for depth, name in indent.items() if depth < len(match[1])]
            parent = parents[-1] if parents else "ChicoryError"
            assert getattr(errors, match[2]).__mro__[1] is getattr(errors, parent), match[2]
            indent = {depth: name for depth, name in indent.items() if depth <= len(match[1])}


def test_importing_chicory_loads_nothing_until_a_name_is_used():
    code = "import sys, chicory; print([m for m in sys.modules if m.startswith(('chicory.', 'pydantic', 'structlog'))])"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_nothing_unpickles_or_evaluates():
    """Nothing from a message or a result is imported, evaluated or unpickled: no such call is in the code that ships."""
    wrong = []
    for file in [*SOURCE.rglob("*.py"), *ROOT.glob("plugins/*/src/**/*.py")]:
        if "testing" in file.parts:
            continue
        for number, line in enumerate(file.read_text().splitlines(), start=1):
            if re.search(r"\b(pickle|marshal|shelve|dill)\b\.|\bimport (pickle|marshal|shelve)|(?<![\w.])(eval|exec)\(", line):
                wrong.append(f"{file.name}:{number} {line.strip()}")

    assert wrong == []
