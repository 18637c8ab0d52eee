"""The demo's app, as a user would write it: one task that reads a Python file."""

from __future__ import annotations

import ast
import tokenize
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from chicory import Chicory, RetryPolicy

app = Chicory()


@dataclass
class FileCount:
    """What is in one source file."""

    lines: int
    tokens: int
    imports: dict[str, int] = field(default_factory=dict)


@app.task(retry_policy=RetryPolicy(max_retries=2, retry_delay=0.1, retry_on=(OSError,)))
def count_file(path: Path) -> FileCount:
    """Count the lines, tokens and imported modules of a file; a file that does not parse is a failure."""
    with tokenize.open(path) as source:
        text = source.read()
    tree = ast.parse(text, filename=str(path))
    with path.open("rb") as data:
        tokens = sum(1 for _ in tokenize.tokenize(data.readline))
    return FileCount(lines=text.count("\n") + 1, tokens=tokens, imports=dict(_imports(tree)))


def _imports(tree: ast.Module) -> Counter[str]:
    found: Counter[str] = Counter()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found[node.module.partition(".")[0]] += 1
    return found
