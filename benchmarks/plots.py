"""Draws one run: ``python -m benchmarks.plots FILE.json FOLDER``, where matplotlib is; prints the names of the files."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib as mpl

from benchmarks.measures import BROKERS, BY_KEY, of_broker
from benchmarks.runner import Results, medians_of, values_of

mpl.use("svg")
from matplotlib import pyplot as plt
from matplotlib.ticker import NullFormatter

_RATES = ("publish_one", "publish_gather", "publish_many", "run_results", "run_ignored", "run_two")
_TRIPS = ("trip_p50", "trip_p99", "shared_p50", "shared_p99", "loaded_p50", "loaded_p99")
_SIZES = {"1k": 1_000, "10k": 10_000, "100k": 100_000, "1m": 1_000_000}
_OURS, _THEIRS = "#c2410c", "#94a3b8"


def main() -> None:
    results: Results = json.loads(Path(sys.argv[1]).read_bytes())
    folder = Path(sys.argv[2])
    mpl.rcParams.update({"svg.hashsalt": "chicory", "svg.fonttype": "none", "font.size": 8})
    for broker, title in BROKERS.items():
        for name, keys in (("throughput", _RATES), ("round-trips", _TRIPS)):
            if _bars(results, broker, keys, folder / f"{broker}-{name}.svg", f"{title}: {name.replace('-', ' ')}"):
                print(f"{broker}-{name}.svg")
    if _growth(results, folder / "backlog.svg"):
        print("backlog.svg")


def _bars(results: Results, broker: str, keys: tuple[str, ...], path: Path, title: str) -> bool:
    """One panel a measure, one bar a contender, with the spread; logarithmic, since they are far apart."""
    facts, values, medians = results["contenders"], values_of(results), medians_of(results)
    names = [name for role in ("ours", "peer") for name in of_broker(facts, broker, role) if name in values]
    shown = [key for key in keys if any(key in values[name] for name in names)]
    if not shown:
        return False
    figure, axes = plt.subplots(
        1, len(shown), figsize=(2.2 * len(shown) + 1, 0.24 * len(names) + 1.1), sharey=True, squeeze=False
    )
    for axis, key in zip(axes[0], shown, strict=True):
        for place, name in enumerate(reversed(names)):
            if key in values[name]:
                middle, raw = medians[name][key], values[name][key]
                color = _OURS if facts[name]["about"]["role"] == "ours" else _THEIRS
                axis.barh(place, middle, color=color, xerr=[[middle - min(raw)], [max(raw) - middle]], ecolor="#475569")
        axis.set_xscale("log")
        axis.xaxis.set_minor_formatter(NullFormatter())
        # A logarithmic bar has no zero: all panels begin at a third of the least, so that the least is a bar too.
        axis.set_xlim(left=min(medians[name][key] for name in names if key in values[name]) / 3)
        axis.set_title(f"{BY_KEY[key].title.replace('`', '')} ({BY_KEY[key].unit})", fontsize=7)
    axes[0][0].set_yticks(range(len(names)), [facts[name]["about"]["title"] for name in reversed(names)])
    figure.suptitle(title, fontsize=9)
    _save(figure, path)
    return True


def _growth(results: Results, path: Path) -> bool:
    """The rate over the size of the backlog."""
    medians = medians_of(results)
    figure, axis = plt.subplots(figsize=(6, 2.8))
    for name, found in medians.items():
        points = [(size, found[f"grow_{key}"]) for key, size in _SIZES.items() if f"grow_{key}" in found]
        if points:
            ours = results["contenders"][name]["about"]["role"] == "ours"
            axis.plot(
                *zip(*points, strict=True), marker=".", label=name, color=None if ours else _THEIRS, alpha=1 if ours else 0.6
            )
    is_drawn = bool(axis.lines)
    if is_drawn:
        axis.set(xscale="log", yscale="log", xlabel="tasks in the backlog", ylabel="tasks/s", title="Backlog")
        axis.legend(fontsize=6, ncols=3)
        _save(figure, path)
    plt.close(figure)
    return is_drawn


def _save(figure: plt.Figure, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
