"""Two outputs side by side."""

from __future__ import annotations

from benchmarks.measures import FLOORS, MEASURES
from benchmarks.runner import Results, medians_of

_REGRESSION = 0.85


def compare(before: Results, after: Results) -> tuple[str, int]:
    """Ratios of the medians as a table, and how many regressions; above 1 is better, also for what should be small."""
    first, second = medians_of(before), medians_of(after)
    lines = ["|  | contender | before | after | better by |  |", "| --- | --- | --- | --- | --- | --- |"]
    regressions = 0
    for measure in (*MEASURES, *FLOORS):
        for name in first:
            if measure.key in first[name] and measure.key in second.get(name, {}):
                old, new = first[name][measure.key], second[name][measure.key]
                ratio = 1.0 if old == new else measure.fraction(new, old) if old else float("inf") if measure.is_rate else 0.0
                mark = "REGRESSION" if ratio < _REGRESSION else ""
                regressions += bool(mark)
                lines.append(f"| {measure.title} | {name} | {old:,.4g} | {new:,.4g} | {ratio:.2f}x | {mark} |")
    return "\n".join(lines), regressions
