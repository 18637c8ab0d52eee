"""A worker that prints its spans: one order, whose charge fails once, as one trace.

Run it::

    python examples/observability/console.py

What appears (``<...>`` stands for what varies)::

    order 7 costs 700
    1 trace, begun by the worker
    process default (order) 1
    send default (charge)
    process default (charge) 1 ConnectionError
    retry default
    process default (charge) 2
    ack default
    ack default

It needs ``chicory-otel[sdk]``. With ``chicory-otel[otlp]``, and a collector as in ``collector.yaml``, the same worker is::

    OTEL_SERVICE_NAME=shop OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318 chicory worker shop:app --plugin otel
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parent))

_VARIABLES = {"OTEL_TRACES_EXPORTER": "console", "OTEL_SERVICE_NAME": "shop", "PYTHONPATH": str(Path(__file__).parent)}


def described(span: dict) -> str:
    facts = span["attributes"]
    task = f" ({facts['chicory.task.name']})" if "chicory.task.name" in facts else ""
    more = (facts.get(name) for name in ("chicory.task.attempt", "error.type"))
    return " ".join([f"{span['name']}{task}", *(str(fact) for fact in more if fact is not None)])


def main() -> None:
    command = [sys.executable, "-m", "chicory", "worker", "shop:app", "--plugin", "otel", "--log-level", "ERROR"]
    with TemporaryDirectory() as folder:
        os.chdir(folder)  # where shop.db is made
        from shop import order  # noqa: PLC0415 - its file is made where this process is now

        with subprocess.Popen(command, env={**os.environ, **_VARIABLES}, stdout=subprocess.PIPE, text=True) as worker:  # noqa: S603 - ours
            print("order 7 costs", order.delay_sync(7).get_sync(timeout=90))
            worker.terminate()  # it drains, and exports what it has
            printed = worker.stdout.read() if worker.stdout else ""
        os.chdir("/")
    spans = [json.loads(text) for text in f"\n{printed}".replace("\n{", "\0{").split("\0") if text.strip()]
    print(len({span["context"]["trace_id"] for span in spans}), "trace, begun by the worker")
    for span in sorted(spans, key=lambda span: span["start_time"]):
        print(described(span))


if __name__ == "__main__":
    main()
