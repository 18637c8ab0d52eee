"""Calling from code without event loop, as a view of Flask or Django does: ``delay_sync`` and ``get_sync``.

Run it::

    python examples/sync_web.py

What appears::

    GET /resize?width=400
    202 Accepted: order-400 is PENDING
    GET /result?id=order-400
    200 OK: 400x300
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import parse_qs

from chicory import AsyncResult, Chicory

if __name__ == "__main__":
    folder = TemporaryDirectory()
    os.environ["CHICORY_BROKER_URL"] = f"sqlite:///{folder.name}/chicory.db"  # for this process and its worker
tasks = Chicory()


@tasks.task
def resize(width: int) -> str:
    return f"{width}x{width * 3 // 4}"


def web(environ: dict[str, str], start_response: Callable[..., object]) -> Iterable[bytes]:
    query = {name: values[0] for name, values in parse_qs(environ["QUERY_STRING"]).items()}
    if environ["PATH_INFO"] == "/resize":
        result = resize.options(task_id=f"order-{query['width']}").delay_sync(int(query["width"]))
        start_response("202 Accepted", [])
        return [f"{result.task_id} is PENDING".encode()]
    start_response("200 OK", [])
    return [str(AsyncResult(query["id"], tasks.backend).get_sync(timeout=30)).encode()]


def visit(path: str, query: str) -> None:
    print(f"GET {path}?{query}")
    body = web({"PATH_INFO": path, "QUERY_STRING": query}, lambda status, _headers: print(f"{status}: ", end=""))
    print(b"".join(body).decode())


if __name__ == "__main__":
    command = [sys.executable, "-m", "chicory", "worker", "sync_web:tasks", "--log-level", "error"]
    with folder, subprocess.Popen(command, cwd=Path(__file__).parent) as worker:  # noqa: S603 - our own command
        try:
            visit("/resize", "width=400")
            visit("/result", "id=order-400")
        finally:
            worker.terminate()
