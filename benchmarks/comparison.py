"""Two outputs side by side."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.measures import MEASURES
from benchmarks.report import medians_of

_REGRESSION = 0.85


def compare(before: Path, after: Path) -> str:
    """Ratios of the medians as a table; better is above 1 for rates and for what should be small alike."""
    first, second = (medians_of(json.loads(path.read_bytes())["values"]) for path in (before, after))
    lines = ["| | contender | before | after | better by | |", "| --- | --- | --- | --- | --- | --- |"]
    for measure in MEASURES:
        for name in first:
            if measure.key in first[name] and measure.key in second.get(name, {}):
                old, new = first[name][measure.key], second[name][measure.key]
                ratio = measure.fraction(new, old) if new and old else 1.0
                mark = "REGRESSION" if ratio < _REGRESSION else ""
                lines.append(f"| {measure.title} | {name} | {old:,.4g} | {new:,.4g} | {ratio:.2f}x | {mark} |")
    return "\n".join(lines)
