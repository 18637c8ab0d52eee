"""``examples/observability`` runs as it says, and prints what it says."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]
FILE = ROOT / "examples" / "observability" / "console.py"


@pytest.mark.timeout(200)
def test_the_example_prints_what_it_promises(tmp_path):
    docstring = ast.get_docstring(ast.parse(FILE.read_text()))
    (expected,) = re.findall(r"What appears .*?::\n\n(.*?)\n\n", docstring, re.DOTALL)
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("CHICORY_", "OTEL_"))}

    done = subprocess.run(
        [sys.executable, str(FILE)],
        cwd=tmp_path,
        env={**clean, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [line.strip() for line in expected.splitlines()], done.stderr
    assert list(tmp_path.iterdir()) == []
    assert "python examples/observability/console.py" in docstring
