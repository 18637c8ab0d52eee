"""One measurement: runs in a contender's own interpreter and prints one line of JSON.

``python -m benchmarks.harness CONTENDER WORKLOAD N``, with ``BENCHMARK_FOLDER`` naming an empty directory and
``BENCHMARK_SERVER`` the broker's server, if it has one. The workload ``list`` tells about the contender instead.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from benchmarks.adapter import About, Adapter
from benchmarks.probes import probe_of
from benchmarks.steps import adopt_orphans
from benchmarks.workloads import Bench, load, workloads


def main() -> None:
    contender, workload, n = sys.argv[1:]
    module = importlib.import_module(f"benchmarks.contenders.{contender}")
    if workload == "load":
        load(module.ADAPTER, int(n))
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))  # so that workers are ended too
    adopt_orphans()
    os.environ["BENCHMARK_CONTENDER"] = contender
    print(json.dumps(_list(module) if workload == "list" else _measure(module, workload, int(n))))


def _list(module: Any) -> dict[str, Any]:
    about: About = module.ABOUT
    own: Mapping[str, Any] = getattr(module, "WORKLOADS", {})
    shared = workloads(module.ADAPTER) if hasattr(module, "ADAPTER") else {}
    return {"about": asdict(about), "notes": (module.__doc__ or "").strip(), "workloads": [*shared, *own]}


def _measure(module: Any, workload: str, n: int) -> Mapping[str, float]:
    """Workloads of the module's own take N; the shared ones its adapter."""
    own = getattr(module, "WORKLOADS", {})
    if workload in own:
        found: Mapping[str, float] = own[workload](n)
        return found
    adapter: Adapter = module.ADAPTER
    about = adapter.about
    probe = probe_of(about.broker, os.environ["BENCHMARK_SERVER"], os.environ["BENCHMARK_MONITOR"])
    return workloads(adapter)[workload](Bench(adapter=adapter, probe=probe, n=n))


if __name__ == "__main__":
    main()
