"""Writes the tables and the plots of one run into the documentation."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from benchmarks.environments import ROOT, SERVERS, Environment
from benchmarks.report import markdown

PAGE = ROOT / "docs" / "benchmarks.md"
PLOTS = ROOT / "docs" / "plots"
_BEGIN, _END = "<!-- begin: a run -->", "<!-- end: a run -->"


def write_page(output: Path) -> None:
    """Replace what stands between the marks of the page, and draw the plots anew."""
    results = json.loads(output.read_bytes())
    PLOTS.mkdir(exist_ok=True)
    for old in PLOTS.glob("*.svg"):
        old.unlink()
    python = Environment(SERVERS).prepare()
    command = [python, "-m", "benchmarks.plots", str(output.resolve()), str(PLOTS)]
    drawn = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    images = [f"| ![{Path(name).stem.replace('-', ' ')}](plots/{name}) |" for name in drawn]
    plots = "\n".join(["## Plots", "", "| logarithmic; chicory is the coloured one |", "| --- |", *images])
    PAGE.write_text(with_run(PAGE.read_text(), f"{markdown(results)}\n\n{plots}"))


def with_run(page: str, run: str) -> str:
    """*page* with *run* between its marks."""
    before, begin, rest = page.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"the page has no {_BEGIN} and {_END}")
    return f"{before}{begin}\n\n{run.strip()}\n\n{end}{after}"
