"""The order of modules: each imports only from rows above its own. Nothing hides an import in a function but import cost."""

import ast
from pathlib import Path

import chicory

SOURCE = Path(chicory.__file__).parent

# From the bottom of the house to its top; modules of one row do not import each other.
ROWS = [
    ["errors"],
    ["clock"],
    ["message"],
    ["backoff", "batch", "retry", "loop_thread", "launch", "lifeline", "threads", "vitals", "healthcheck", "faultpoints"],
    ["broker", "serializer"],
    ["codec", "settings", "typing_rules"],
    ["backend", "record", "config", "signature", "context", "portal", "home"],
    ["options", "result", "border"],
    ["task"],
    ["middleware", "offers", "invocation"],
    ["logs"],
    ["lease", "suspects", "events", "processes", "watchdog", "probes"],
    ["verdict"],
    ["outbox", "execution", "heartbeat", "tally"],
    ["pump"],
    ["hookspecs"],
    ["plugin"],
    ["plugins"],
    ["memory_store"],
    ["memory"],
    ["builtin", "choice"],
    ["client"],
    ["facade"],
    ["app"],
    ["guard", "checkup"],
    ["doctor"],
    ["signals"],
    ["worker", "supervisor", "child"],
    ["demo", "scaffold"],
    ["cli"],
    ["__main__"],
    ["testing"],
]
RANK = {name: rank for rank, row in enumerate(ROWS) for name in row}
LAZY = {"cli", "testing", "__main__", "demo", "__init__"}
"""Commands import what they need when they are used; the package's names are looked up lazily."""


def _module_of(file: Path) -> str:
    return file.relative_to(SOURCE).parts[0].removesuffix(".py")


def _imports(file: Path):
    """(line, module of ours, whether inside a function) of each import in *file*, those for type checkers too."""
    tree = ast.parse(file.read_text())
    inside = {id(n) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef) for n in ast.walk(f)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""] if node.module != "chicory" else [f"chicory.{a.name}" for a in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            if name.startswith("chicory."):
                yield node.lineno, name.split(".")[1], id(node) in inside


FILES = sorted(SOURCE.rglob("*.py"))


def test_every_module_has_its_row():
    modules = {_module_of(file) for file in FILES} - {"__init__"}

    assert modules == set(RANK)


def test_modules_import_only_from_rows_above():
    wrong = []
    for file in FILES:
        module = _module_of(file)
        if module == "__init__":
            continue
        for line, other, _ in _imports(file):
            is_ours = other in RANK
            if is_ours and other != module and RANK[other] >= RANK[module]:
                wrong.append(f"{file.relative_to(SOURCE)}:{line} {module} imports {other}")

    assert wrong == []


def test_no_import_is_hidden_in_a_function():
    hidden = [
        f"{file.relative_to(SOURCE)}:{line}"
        for file in FILES
        if _module_of(file) not in LAZY
        for line, _, is_inside in _imports(file)
        if is_inside
    ]

    assert hidden == []


def test_the_core_imports_no_client_library_and_no_plugin():
    foreign = {"sqlite3", "redis", "nats", "opentelemetry", "uvloop", "pytest", "hypothesis"}
    found = []
    for file in FILES:
        if _module_of(file) == "testing":
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                top = name.split(".")[0]
                if top in foreign or top.startswith("chicory_"):
                    found.append(f"{file.relative_to(SOURCE)}:{node.lineno} {name}")

    # What type checkers see of the plugins in this repository, and uvloop in the command that may use it.
    sections = [f"chicory_{name}.settings" for name in ("nats", "redis", "sqlite") for _ in range(2)]
    assert [f.split(" ")[1] for f in found] == ["uvloop", *sections]
