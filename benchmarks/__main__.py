"""The command line of the benchmarks."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from benchmarks.comparison import compare
from benchmarks.environments import contenders
from benchmarks.pages import write_page
from benchmarks.profiling import PARTS_OF, profile
from benchmarks.report import markdown
from benchmarks.runner import Results, Wish, new_results, run

_N, _QUICK_N = 10_000, 300


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    commands = parser.add_subparsers(dest="command", required=True)
    runs = commands.add_parser("run", help="measure, and print the tables")
    runs.add_argument("--output", type=Path, metavar="FILE.json", help="every raw number, written after each measurement")
    runs.add_argument("--resume", action="store_true", help="measure what FILE.json does not hold yet")
    runs.add_argument("--only", default="", metavar="NAME,…", help=f"contenders: {', '.join(contenders())}")
    runs.add_argument("--workload", default="", metavar="NAME,…", help="workloads; all but backlog_1m by default")
    runs.add_argument("--n", type=int, default=_N, help="tasks in each throughput measurement")
    runs.add_argument("--repeat", type=int, default=3, help="repetitions, contenders taking turns")
    runs.add_argument("--quick", action="store_true", help=f"a smoke test: --n {_QUICK_N} --repeat 1")
    compares = commands.add_parser("compare", help="ratios of two outputs; ends with 1 if there are regressions")
    compares.add_argument("before", type=Path)
    compares.add_argument("after", type=Path)
    reports = commands.add_parser("report", help="print the tables of an output again")
    reports.add_argument("output", type=Path)
    docs = commands.add_parser("docs", help="write tables and plots of an output into docs/benchmarks.md")
    docs.add_argument("output", type=Path)
    profiles = commands.add_parser("profile", help="where the microseconds of one task go, as a table")
    profiles.add_argument("what", choices=["publish", "run"])
    profiles.add_argument("--on", choices=list(PARTS_OF), default="memory")
    profiles.add_argument("--concurrency", type=int, default=100)
    profiles.add_argument("--n", type=int, default=40_000)
    profiles.add_argument("--stacks", type=Path, metavar="FILE", help="keep the samples, for flamegraph.pl or speedscope")
    return parser


def main() -> int:
    arguments = _parser().parse_args()
    if arguments.command == "run":
        return _run(arguments)
    if arguments.command == "compare":
        table, regressions = compare(_load(arguments.before), _load(arguments.after))
        print(table)
        return 1 if regressions else 0
    if arguments.command == "report":
        print(markdown(_load(arguments.output)))
    elif arguments.command == "docs":
        write_page(arguments.output)
    else:
        print(profile(arguments.what, arguments.on, arguments.concurrency, arguments.n, arguments.stacks))
    return 0


def _run(arguments: argparse.Namespace) -> int:
    wish = Wish(
        contenders=[name for name in arguments.only.split(",") if name],
        workloads=[name for name in arguments.workload.split(",") if name],
        n=_QUICK_N if arguments.quick else arguments.n,
        repeat=1 if arguments.quick else arguments.repeat,
        tries=1 if arguments.quick else 2,
    )
    output: Path | None = arguments.output
    results = _begin(output, wish, resume=arguments.resume)

    def save(found: Results) -> None:
        if output is not None:
            beside = output.with_suffix(".part")
            beside.write_text(json.dumps(found, indent=1) + "\n")
            beside.replace(output)

    failed = len(results["failures"])
    run(contenders(), wish, results, save)
    print(markdown(results))
    return 1 if len(results["failures"]) > failed else 0


def _begin(output: Path | None, wish: Wish, *, resume: bool) -> Results:
    if not resume or output is None or not output.exists():
        return new_results(wish)
    results = _load(output)
    if results["n"] != wish.n:
        raise SystemExit(f"{output} holds a run of N = {results['n']}, not {wish.n}: it cannot be resumed")
    results["repeat"] = max(results["repeat"], wish.repeat)
    return results


def _load(path: Path) -> Results:
    found: Results = json.loads(path.read_bytes())
    return found


if __name__ == "__main__":
    sys.exit(main())
