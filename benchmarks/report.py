"""The tables of one run: what is to be reached, and all contenders side by side, broker by broker."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.measures import BROKERS, FLOORS, MEASURES, Facts, Measure, Medians, best, of_broker
from benchmarks.runner import NOISE, Results, medians_of, values_of
from benchmarks.targets import Verdict, verdicts

Values = dict[str, dict[str, list[float]]]
Row = list[str]


def markdown(results: Results) -> str:
    """The output of a run as Markdown."""
    facts, values, medians = results["contenders"], values_of(results), medians_of(results)
    parts = [_summary(verdicts(facts, medians))]
    for broker, title in BROKERS.items():
        if tables := [text for text in _of_broker(broker, facts, values, medians) if text]:
            parts += [f"## {title}", *tables]
    parts += ["## How it was measured", "\n".join(f"- {note}" for note in _notes(results))]
    return "\n\n".join(part for part in parts if part)


def _summary(found: Sequence[Verdict]) -> str:
    met = sum(verdict.is_met for verdict in found)
    return f"{met} of {len(found)} targets that were measured are met." if found else ""


def _of_broker(broker: str, facts: Facts, values: Values, medians: Medians) -> list[str]:
    parts = [_own_table(broker, facts, values, medians)]
    shown = [name for name in of_broker(facts, broker, "ours") + of_broker(facts, broker, "peer") if name in values]
    if len(shown) > 1:
        about = [facts[name]["about"] for name in shown]
        header = ["", *(f"{fact['title']}<br>({fact['guarantee']})" for fact in about)]
        rows = [
            [m.title, *(_cell(m, values[name].get(m.key)) for name in shown)] for m in MEASURES if _is_shared(m, shown, values)
        ]
        parts += ["All contenders:", _table(header, rows)]
    floors = [name for name in of_broker(facts, broker, "floor") if name in values]
    rows = [[m.title, _cell(m, values[name][m.key])] for name in floors for m in FLOORS if m.key in values[name]]
    if rows:
        parts += [
            "The floor, without any framework:",
            _table([" and ".join(facts[n]["about"]["title"] for n in floors), ""], rows),
        ]
    return parts


def _is_shared(measure: Measure, names: list[str], values: Values) -> bool:
    """At least one peer has it."""
    return any(measure.key in values[name] for name in names[1:])


def _own_table(broker: str, facts: Facts, values: Values, medians: Medians) -> str:
    """Each of chicory's numbers beside the best peer, the floor and what is wanted."""
    ours = [name for name in of_broker(facts, broker, "ours") if name in values]
    if not ours:
        return ""
    wanted = [verdict for verdict in verdicts(facts, medians) if verdict.target.broker == broker]
    header = ["", "chicory", "best peer", "to best peer", "to the floor", "target", "verdict"]
    measures = [measure for measure in MEASURES if measure.key in values[ours[0]]]
    return _table(header, [_own_row(m, broker, ours[0], facts, values, medians, wanted) for m in measures])


def _own_row(
    measure: Measure, broker: str, own: str, facts: Facts, values: Values, medians: Medians, wanted: Sequence[Verdict]
) -> Row:
    value = medians[own][measure.key]
    peers = _best_peers(measure, broker, facts, medians)
    floors = [medians[n] for n in of_broker(facts, broker, "floor") if n in medians]
    floor = next((found[measure.floors[broker]] for found in floors if measure.floors.get(broker) in found), None)
    verdict = [verdict for verdict in wanted if verdict.target.key == measure.key]
    return [
        measure.title,
        _cell(measure, values[own][measure.key]),
        "<br>".join(f"{_title(facts[name])}, {_cell(measure, [medians[name][measure.key]])}" for name in peers),
        "<br>".join(_times(measure, value, medians[name][measure.key]) for name in peers),
        "" if floor is None else _times(measure, value, floor),
        "<br>".join(found.target.text(facts) for found in verdict),
        "<br>".join(found.text() for found in verdict),
    ]


def _best_peers(measure: Measure, broker: str, facts: Facts, medians: Medians) -> list[str]:
    """The best one, and the best of those that promise at least once, if that is another."""
    peers = of_broker(facts, broker, "peer")
    found = [
        best(measure, names, medians) for names in (peers, [name for name in peers if facts[name]["about"]["at_least_once"]])
    ]
    return list(dict.fromkeys(name for name in found if name is not None))


def _title(fact: Mapping[str, Any]) -> str:
    about = fact["about"]
    return str(about["title"]) if about["at_least_once"] else f"{about['title']} ({about['guarantee']})"


def _times(measure: Measure, value: float, reference: float) -> str:
    return f"{measure.fraction(value, reference):.2f}x" if reference else ""


def _table(header: Row, rows: Sequence[Row]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in [header, ["---"] * len(header), *rows])


def _cell(measure: Measure, raw: list[float] | None) -> str:
    if raw is None:
        return ""
    shown = f"{_number(statistics.median(raw))} {measure.unit}".replace(" /s", "/s").strip()
    return shown if len(raw) == 1 else f"{shown} ({_number(min(raw))}-{_number(max(raw))})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _notes(results: dict[str, Any]) -> list[str]:
    facts = results["machine"]
    machine = f"{facts['cpus']} x {facts['processor']}, kernel {facts['kernel']}, Python {facts['python']}"
    notes = [
        f"N = {results['n']:,}, less for slow peers; medians (min-max) of {results['repeat']}.",
        "Above 1x is better, also where small is good.",
        f"{machine}, SQLite {facts['sqlite']}; commit {facts['commit']}, {facts['date']}.",
    ]
    notes += [
        f"{name}: {', '.join(f'{d} {v}' for d, v in found.items())}." for name, found in results["versions"].items() if found
    ]
    notes += [f"Skipped: {name}: {reason}." for name, reason in results["skipped"].items()]
    noisy = [f"{m['contender']} {m['workload']} ({m['others_cores']})" for m in results["runs"] if m["others_cores"] >= NOISE]
    if noisy:
        notes.append(f"Disturbed by other programs, in cores: {', '.join(noisy)}.")
    done = {(entry["contender"], entry["workload"]) for entry in results["runs"]}
    failed = {(failure["contender"], failure["workload"]) for failure in results["failures"]}
    notes += [f"FAILED: {name} {workload}{' (once)' if (name, workload) in done else ''}." for name, workload in sorted(failed)]
    return notes
