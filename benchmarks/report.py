"""The table of one run, with what is to be reached beside each number."""

from __future__ import annotations

import json
import statistics
from typing import Any

from benchmarks.measures import FLOOR, MEASURES, OURS, Measure, Medians, Target, best_peer
from benchmarks.runner import NOISE


def medians_of(values: dict[str, dict[str, list[float]]]) -> dict[str, dict[str, float]]:
    return {name: {key: statistics.median(raw) for key, raw in measured.items()} for name, measured in values.items()}


def markdown(text: bytes) -> str:
    """The output of a run as Markdown."""
    results = json.loads(text)
    values: dict[str, dict[str, list[float]]] = results["values"]
    medians = medians_of(values)
    peers = [name for name in values if name not in (OURS, FLOOR)]
    header = ["", OURS, *peers, "to best peer", "to the floor", "target", "verdict"]
    rows = [_row(measure, values, medians, peers) for measure in MEASURES if any(measure.key in v for v in values.values())]
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join([*(f"| {' | '.join(line)} |" for line in lines), "", *_notes(results)])


def _row(measure: Measure, values: dict[str, dict[str, list[float]]], medians: Medians, peers: list[str]) -> list[str]:
    own, peer = medians.get(OURS, {}).get(measure.key), best_peer(measure, medians)
    floor = medians.get(FLOOR, {}).get(measure.floor or "")
    title = measure.title
    if measure.key in values.get(FLOOR, {}):
        title += f": bare sqlite3 {_cell(measure, values[FLOOR][measure.key])}"
    return [
        title,
        *(_cell(measure, values[name][measure.key]) if measure.key in values.get(name, {}) else "" for name in (OURS, *peers)),
        _times(own, peer),
        _times(own, floor),
        "<br>".join(_wanted(measure, target) for target in measure.targets),
        "" if own is None else "<br>".join(_verdict(measure, target, own, medians) for target in measure.targets),
    ]


def _cell(measure: Measure, raw: list[float]) -> str:
    shown = f"{_number(statistics.median(raw))} {measure.unit}".replace(" /s", "/s")
    return shown if len(raw) == 1 else f"{shown} ({_number(min(raw))}-{_number(max(raw))})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _times(value: float | None, reference: float | None) -> str:
    return "" if value is None or reference is None else f"{value / reference:.2f}x"


def _wanted(measure: Measure, target: Target) -> str:
    sign = ">=" if measure.is_rate else "<="
    names = {"peer": "best peer", **{m.key: m.title for m in MEASURES}}
    if target.of is not None:
        return f"{sign} {target.bound:g}x {names[target.of]}"
    return f"{sign} {_number(target.bound)} {measure.unit}".replace(" /s", "/s")


def _verdict(measure: Measure, target: Target, own: float, medians: Medians) -> str:
    wanted = target.wanted(measure, medians)
    if wanted is None:
        return "not measured"
    fraction = measure.fraction(own, wanted)
    return "reached" if fraction >= 1 else f"not reached: {fraction:.2f} of target"


def _notes(results: dict[str, Any]) -> list[str]:
    facts = results["machine"]
    about = (
        f"{facts['cpus']} x {facts['processor']}, kernel {facts['kernel']}, Python {facts['python']}, SQLite {facts['sqlite']}"
    )
    notes = [f"N = {results['n']:,}; medians (min-max); {about}; commit {facts['commit']}, {facts['date']}."]
    notes += [
        f"{name}: {', '.join(f'{d} {v}' for d, v in found.items())}." for name, found in results["versions"].items() if found
    ]
    noisy = [f"{m['contender']} {m['workload']} ({m['others_cores']})" for m in results["runs"] if m["others_cores"] >= NOISE]
    if noisy:
        notes.append(f"Disturbed by other programs, in cores: {', '.join(noisy)}.")
    notes += [f"FAILED: {failure['contender']} {failure['workload']}." for failure in results["failures"]]
    return [f"- {note}" for note in notes]
