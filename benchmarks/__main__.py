"""The command line of the benchmarks."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from benchmarks.comparison import compare
from benchmarks.environments import ROOT, Environment, contenders
from benchmarks.report import markdown
from benchmarks.runner import run, write


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    commands = parser.add_subparsers(dest="command", required=True)
    runs = commands.add_parser("run", help="measure, and print a table")
    runs.add_argument("--only", nargs="+", default=[], metavar="NAME", help="contenders or workloads; all of them by default")
    runs.add_argument("--n", type=int, default=10_000, help="tasks in each throughput measurement")
    runs.add_argument("--repeat", type=int, default=3, help="repetitions, contenders taking turns")
    runs.add_argument("--output", type=Path, metavar="FILE.json", help="every raw number, with versions and machine")
    compares = commands.add_parser("compare", help="ratios of two outputs, regressions marked")
    compares.add_argument("before", type=Path)
    compares.add_argument("after", type=Path)
    reports = commands.add_parser("report", help="print the table of an output again")
    reports.add_argument("output", type=Path)
    profiles = commands.add_parser("profile", help="where the microseconds go, on the memory broker")
    profiles.add_argument("what", choices=["publish", "run"])
    return parser


def main() -> int:
    arguments = _parser().parse_args()
    if arguments.command == "run":
        return _run(arguments)
    if arguments.command == "compare":
        print(compare(arguments.before, arguments.after))
        return 0
    if arguments.command == "report":
        print(markdown(arguments.output.read_bytes()))
        return 0
    python = Environment("chicory").prepare()
    return subprocess.run([python, "-m", "benchmarks.profiling", arguments.what], cwd=ROOT, check=False).returncode


def _run(arguments: argparse.Namespace) -> int:
    results = run(contenders(), only=set(arguments.only), n=arguments.n, repeat=arguments.repeat)
    text = write(results, arguments.output)
    print(markdown(text))
    return 1 if results["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
