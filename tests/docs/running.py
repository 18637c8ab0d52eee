"""Running a page: its blocks in their order, in one namespace and one directory."""

import ast
import asyncio
import contextlib
import inspect
import io
import os
import re
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

from chicory import Chicory, Worker
from chicory.testing import eventually

from .pages import Block, Page

_VARYING = re.compile(r"<[a-z][a-z ]*>")
_EXIT = re.compile(r"\s+# exits with (\d+)$")
_INSTALLS = re.compile(r"\bpip install\b|\btox\b")
"""What changes the environment in which the tests themselves run."""
_WORKER = re.compile(r"((?:\w+=\S+ )*)(chicory worker .*?)(?: &)?")
"""The command that goes on, after variables that are set for it alone."""
_INTERRUPT = "^C"
"""What a terminal shows of Ctrl-C: a line before a prompt, which stops what runs in it."""
_PATIENCE = 300.0
"""Seconds for a command: long, for only a failure waits for them, and a page may run a whole suite on a busy machine."""


def pattern_of(expected: str) -> re.Pattern[str]:
    """Matches output that has the lines of *expected*, and no others: columns may be wider, ``<...>`` is what varies."""
    parts = (re.sub(r"(\\ )+", " +", re.escape(part)) for part in _VARYING.split(expected.strip()))
    return re.compile(r"[^\n]+?".join(parts))


class Session:
    """What a reader does who follows one page: an editor, a Python prompt with ``await``, a terminal."""

    def __init__(self, page: Page, folder: Path) -> None:
        self.page, self.folder = page, folder
        self.namespace: dict[str, Any] = {"__name__": page.path.stem.replace("-", "_").lower()}
        self.runner = asyncio.Runner()
        self.workers: list[tuple[subprocess.Popen, Path]] = []
        clean = {name: value for name, value in os.environ.items() if not name.startswith("CHICORY_")}
        path = os.pathsep.join([str(Path(sys.executable).parent), clean.get("PATH", "")])
        self.environment = {**clean, "PATH": path, "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "80", "LANG": "C.UTF-8"}
        self.environment["TMPDIR"] = str(folder)  # where workers say how they are
        self.namespace["_environment"] = self.environment  # for what is run and not shown

    def run(self) -> None:
        """Run every block that can be run; what a block prints is compared with the ``text`` block that follows it."""
        try:
            for block, following in pairwise([*self.page.blocks, None]):
                if block.no_run is None:
                    self._run(block, following)
        finally:
            self._end()

    def _run(self, block: Block, following: Block | None) -> None:
        if name := block.file:
            file = self.folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text)
        elif block.language == "python":
            printed = self._python(block)
            if following is not None and following.language == "text" and following.no_run is None:
                self._compare(following, following.text, printed)
        elif block.language == "console":
            self._console(block)
        elif block.language == "bash":
            for command in block.text.splitlines():
                self._command(block, command, "")

    def _python(self, block: Block) -> str:
        where = f"{self.page.path}:{block.line}"
        tree = ast.increment_lineno(ast.parse(block.text, where), block.line)
        code = compile(tree, str(self.page.path), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            if code.co_flags & inspect.CO_COROUTINE:
                self.runner.run(eval(code, self.namespace))
            else:
                exec(code, self.namespace)
        return output.getvalue()

    def _console(self, block: Block) -> None:
        before, *parts = re.split(r"^\$ ", block.text, flags=re.MULTILINE)
        if before.strip() == _INTERRUPT:
            self._interrupt()
        for part in parts:
            command, _, expected = part.partition("\n")
            self._command(block, command, expected)

    def _command(self, block: Block, command: str, expected: str) -> None:
        if _INSTALLS.search(command):
            return
        expects = _EXIT.search(command)
        command = _EXIT.sub("", command)
        if (found := _WORKER.fullmatch(command)) and not expects:
            self._start_worker(block, f"{found[1]}exec {found[2]}")
            return
        done = subprocess.run(
            command,
            shell=True,
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
        assert done.returncode == int(expects[1] if expects else 0), f"{command}: {done.returncode}\n{done.stdout}"
        if expected.strip():
            self._compare(block, expected, done.stdout)

    def _start_worker(self, block: Block, command: str) -> None:
        """Begin ``chicory worker``, which goes on until Ctrl-C, or to the end of the page."""
        log = self.folder / f".worker-{block.line}.log"
        with log.open("wb") as errors:
            process = subprocess.Popen(command, shell=True, cwd=self.folder, env=self.environment, stderr=errors)
        self.workers.append((process, log))
        count = int(found[1]) if (found := re.search(r"--workers (\d+)", command)) else 1

        def works() -> bool:
            assert process.poll() is None, f"{self.page.name}:{block.line}: {command} ended\n{log.read_text()}"
            return log.read_text().count("worker_started") >= count

        self.runner.run(eventually(works, within=_PATIENCE))

    def _compare(self, block: Block, expected: str, printed: str) -> None:
        assert pattern_of(expected).fullmatch(printed.strip()), (
            f"{self.page.name}:{block.line} shows\n{expected}\nand what appeared is\n{printed}"
        )

    def _end(self) -> None:
        """Close what the page left open, and stop its workers, which must drain well."""
        with self.runner:
            self.runner.run(self._close())
            for value in self.namespace.values():
                if isinstance(value, Chicory):
                    value.run_sync(value.disconnect())
        self._stop_workers(signal.SIGTERM)

    def _interrupt(self) -> None:
        """Press Ctrl-C in the terminals of the workers."""
        assert self.workers, f"{self.page.name}: nothing runs that could be interrupted"
        self._stop_workers(signal.SIGINT)

    def _stop_workers(self, number: int) -> None:
        workers, self.workers = self.workers, []
        for process, _ in workers:
            process.send_signal(number)
        for process, log in workers:
            try:
                code = process.wait(_PATIENCE)
            finally:
                process.kill()
                process.wait()
            assert code == 0, f"{self.page.name}: its worker ended with {code}\n{log.read_text()}"

    async def _close(self) -> None:
        for kind, method in ((Worker, "stop"), (Chicory, "disconnect")):
            for value in list(self.namespace.values()):
                if isinstance(value, kind):
                    await getattr(value, method)()
